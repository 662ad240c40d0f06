from vision.papers import Paper

PAPER = Paper(
    title="MEDIC: A Multi-Task Learning Dataset for Disaster Image Classification",
    year=2021,
    card=156,
    tags=("dataset", "multi-task"),
    headline=(
        "71,198 images with labels of four tasks; one network for all is within about a point of "
        "four."
    ),
    without={
        "method.py": "a data set: the loss is vision.objectives.multitask",
        "config.py": "a data set: nothing is trained but small networks of the claim",
    },
)

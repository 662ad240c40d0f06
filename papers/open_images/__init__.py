from vision.papers import Paper

PAPER = Paper(
    title="The Open Images Dataset V4",
    year=2020,
    card=21,
    tags=("dataset", "multi-label", "detection"),
    headline=(
        "9.2 million images, labels of a hierarchy verified in part, and the average "
        "precision made for them."
    ),
    without={
        "config.py": "a data set and its measure: the claim fits linear classifiers",
    },
)

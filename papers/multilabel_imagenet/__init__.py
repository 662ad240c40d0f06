from vision.papers import Paper

PAPER = Paper(
    title=(
        "Re-assessing ImageNet: How aligned is its single-label assumption with its multi-label "
        "nature?"
    ),
    year=2024,
    card=40,
    tags=("multi-label", "benchmark"),
    headline=(
        "Of 315 models top-1 is 11 to 14 points lower on ImageNetV2; by multi-label measures "
        "little or nothing of that is left."
    ),
    without={
        "method.py": "a measure: it is vision.metrics.label_sets",
        "config.py": "a measure: nothing is trained but a linear classifier of the claim",
    },
)

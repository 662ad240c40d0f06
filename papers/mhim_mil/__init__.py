from vision.papers import Paper

PAPER = Paper(
    title=(
        "Multiple instance learning framework with masked hard instance mining for whole "
        "slide image classification"
    ),
    year=2023,
    card=67,
    tags=("multiple-instance", "medical"),
    headline="AUC on CAMELYON16 of ABMIL from 94.5 to 96.1 (unconfirmed).",
)

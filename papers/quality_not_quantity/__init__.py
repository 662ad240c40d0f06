from vision.papers import Paper

PAPER = Paper(
    title=(
        "Quality Not Quantity: On the Interaction between Dataset Design and Robustness of CLIP"
    ),
    year=2022,
    card=153,
    tags=("image-text", "robustness", "data"),
    headline=("Which web source is robust depends on the shift; mixing sources dilutes the best."),
)

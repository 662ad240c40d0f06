from vision.papers import Paper

PAPER = Paper(
    title=(
        "Lost in Translation: Modern Neural Networks Still Struggle With Small Realistic "
        "Image Transformations"
    ),
    year=2024,
    card=46,
    tags=("robustness", "architecture"),
    headline=(
        "Without training fewer than 5 % of answers change under a move by a pixel, at 1 "
        "% of accuracy; none under cyclic moves."
    ),
)

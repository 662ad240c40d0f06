from vision.papers import Paper

PAPER = Paper(
    title=(
        "Cross-layer cache aggregation for token reduction in ultra-fine-grained image recognition"
    ),
    year=2024,
    card=101,
    tags=("token-reduction", "fine-grained", "efficiency"),
    headline=(
        "Near the best accuracy of ultra-fine-grained recognition while a tenth of the "
        "tokens is kept (values only in figures)."
    ),
)

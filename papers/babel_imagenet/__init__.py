from vision.papers import Paper

PAPER = Paper(
    title=(
        "Babel-ImageNet: Massively Multilingual Evaluation of Vision-and-Language Representations"
    ),
    year=2024,
    card=186,
    tags=("image-text", "zero-shot", "multilingual", "benchmark"),
    headline=(
        "Zero-shot accuracy falls far from English to Sinhala and Lao, as retrieval does; "
        "adapters mend much of it."
    ),
)

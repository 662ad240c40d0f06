from vision.papers import Paper

PAPER = Paper(
    title="M2-Encoder: Advancing Bilingual Image-Text Understanding",
    year=2024,
    card=109,
    tags=("image-text", "multilingual", "scale"),
    headline=(
        "88.5 % on ImageNet and 80.7 % on ImageNet-CN, zero-shot, with 10 billion "
        "parameters; 60 % faster training."
    ),
    without={
        "method.py": "the loss is vision.objectives.contrast.Contrast(groups=...)",
    },
)

from vision.papers import Paper

PAPER = Paper(
    title=(
        "A Simple Zero-shot Prompt Weighting Technique to Improve Prompt Ensembling in "
        "Text-Image Models"
    ),
    year=2023,
    card=69,
    tags=("image-text", "zero-shot", "prompts"),
    headline=(
        "ViT-B/16 on ImageNet with 247 templates: about 68.6 %, against 68.57 % of 80 "
        "hand-crafted ones."
    ),
)

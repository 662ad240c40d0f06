from vision.papers import Paper

PAPER = Paper(
    title="SMMix: Self-motivated image mixing for vision transformers",
    year=2023,
    card=133,
    tags=("augmentation", "vit"),
    headline="73.6 % on ImageNet with DeiT-T, 81.1 % with DeiT-S.",
)

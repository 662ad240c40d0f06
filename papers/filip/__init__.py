from vision.papers import Paper

PAPER = Paper(
    title="FILIP: Fine-grained Interactive Language-Image Pre-Training",
    year=2022,
    card=100,
    tags=("image-text", "zero-shot"),
    headline="77.1 % zero-shot on ImageNet of ViT-L/14 after 340 million pairs.",
)

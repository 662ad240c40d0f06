from vision.papers import Paper

PAPER = Paper(
    title="Learning Transferable Visual Models From Natural Language Supervision",
    year=2021,
    card=28,
    tags=("image-text", "zero-shot"),
    headline="76.2 % zero-shot on ImageNet with ViT-L/14 at 336 px, as a supervised ResNet-50.",
    without={
        "method.py": "the loss is vision.objectives.contrast.Contrast",
    },
)

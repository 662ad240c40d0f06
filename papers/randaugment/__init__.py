from vision.papers import Paper

PAPER = Paper(
    title="RandAugment: Practical automated data augmentation with a reduced search space",
    year=2020,
    card=179,
    tags=("augmentation",),
    headline="EfficientNet-B7 85.0 % on ImageNet; ResNet-50 76.3 to 77.6 % (unconfirmed).",
    without={
        "method.py": "the method is vision.data.ops.RandAugment",
    },
)

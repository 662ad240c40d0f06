from vision.papers import Paper

PAPER = Paper(
    title="DataDAM: Efficient dataset distillation with attention matching",
    year=2023,
    card=169,
    tags=("dataset-distillation",),
    headline="32.0, 54.2 and 67.0 % on CIFAR-10 with 1, 10 and 50 synthetic images per class.",
)

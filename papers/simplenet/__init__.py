from vision.papers import Paper

PAPER = Paper(
    title="Lets keep it simple, Using simple architectures to outperform deeper and more complex "
    "architectures",
    year=2016,
    card=38,
    tags=("architecture", "efficiency"),
    headline="95.51 % on CIFAR-10 with 5.48 million parameters; 72.03 % on ImageNet with 5.7.",
)

from vision.papers import Paper

PAPER = Paper(
    title="Learning Transferable Architectures for Scalable Image Recognition",
    year=2018,
    card=26,
    tags=("architecture", "architecture-search"),
    headline=("2.4 % error on CIFAR-10 with cutout; 82.7 % top-1 on ImageNet (NASNet-A 6 @ 4032)."),
)

from vision.papers import Paper

PAPER = Paper(
    title="MetaFormer: A Unified Meta Framework for Fine-Grained Recognition",
    year=2022,
    card=118,
    tags=("fine-grained", "architecture", "tokens", "attention"),
    headline="iNaturalist 2018 84.3 % from images, 88.7 with place and time (MetaFormer-2, "
    "ImageNet-21k); CUB 92.9.",
)

from vision.papers import Paper

PAPER = Paper(
    title="TransHP: Image classification with hierarchical prompting",
    year=2023,
    card=58,
    tags=("architecture", "vit", "hierarchy"),
    headline="+2.83 points on ImageNet with ViT-B/16; +12.69 on a tenth of the data.",
)

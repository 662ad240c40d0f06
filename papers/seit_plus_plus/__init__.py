from vision.papers import Paper

PAPER = Paper(
    title="SeiT++: Masked Token Modeling Improves Storage-efficient Training",
    year=2024,
    card=131,
    tags=("storage", "masked-modelling"),
    headline="77.8 % on ImageNet-1k with about 1 % of the storage of pixels (unconfirmed).",
)

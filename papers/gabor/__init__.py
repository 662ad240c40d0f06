from vision.papers import Paper

PAPER = Paper(
    title="Learning Gabor Texture Features for Fine-Grained Recognition",
    year=2023,
    card=119,
    tags=("fine-grained", "objective", "texture"),
    headline="State of the art on CUB-200-2011, NABirds, Stanford Dogs and GTOS-mobile in 2023 "
    "(figures unconfirmed).",
)

from vision.papers import Paper

PAPER = Paper(
    title="Knowledge Guided Disambiguation for Large-Scale Scene Classification with "
    "Multi-Resolution CNNs",
    year=2017,
    card=25,
    tags=("objective", "distillation", "ensemble", "scenes"),
    headline="Places365 top-5 error 14.3 to 13.4 % at 256 pixels with soft labels of a scene "
    "network, 14.0 to 13.0 at 384; MIT-67 86.7 %, SUN397 72.0.",
)

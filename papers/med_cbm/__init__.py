from vision.papers import Paper

PAPER = Paper(
    title="Robust and Interpretable Medical Image Classifiers via Concept Bottleneck Models",
    year=2023,
    card=189,
    tags=("explain", "vision-language", "robustness"),
    headline="Tens of points above visual encoders on some confounded chest X-ray sets "
    "(unconfirmed), equal on standard ones.",
)

from vision.papers import Paper

PAPER = Paper(
    title=(
        "Quality Not Quantity: On the Interaction between Dataset Design and Robustness of CLIP"
    ),
    year=2022,
    card=153,
    tags=("image-text", "robustness", "data"),
    headline=("Which web source is robust depends on the shift; mixing sources dilutes the best."),
    without={
        "method.py": "a protocol: the metric is vision.metrics.robustness.fit_robustness_line",
        "config.py": "the claim fits two small towers on frozen features",
    },
)

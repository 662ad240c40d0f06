from vision.papers import Paper

PAPER = Paper(
    title="UHD-IQA Benchmark Database: Pushing the Boundaries of Blind Photo Quality Assessment",
    year=2024,
    card=155,
    tags=("dataset", "quality", "benchmark"),
    headline="6,073 photographs of 3,840 pixels; the best baseline has an SRCC of about 0.77.",
    without={
        "method.py": "a data set: its measures are vision.metrics.quality and ordinal",
        "config.py": "a data set: nothing is trained but a ridge regression of the claim",
    },
)

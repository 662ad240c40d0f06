from vision.papers import Paper

PAPER = Paper(
    title=(
        "Creating an Empirical Dermatology Dataset Through Crowdsourcing With Web Search "
        "Advertisements"
    ),
    year=2024,
    card=172,
    tags=("dataset", "annotators", "medical"),
    headline="5,033 cases with weighted labels of up to three dermatologists, no classifier.",
    without={
        "method.py": "a data set: its rule of labels is vision.metrics.annotators",
        "config.py": "a data set: nothing is trained but a linear classifier of the claim",
    },
)

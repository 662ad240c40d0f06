from vision.papers import Paper

PAPER = Paper(
    title="Unified Functional Hashing in Automatic Machine Learning",
    year=2023,
    card=202,
    tags=("architecture-search", "efficiency"),
    headline=(
        "Large savings of evaluations on NAS-Bench-101 and in the discovery of algorithms "
        "(factors unconfirmed)."
    ),
    without={
        "config.py": "a search over networks that are not trained; the claim sets it up",
    },
)

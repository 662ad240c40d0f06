from vision.papers import Paper

PAPER = Paper(
    title="Stationary Representations: Optimally Approximating Compatibility and Implications for "
    "Improved Model Replacements",
    year=2024,
    card=48,
    tags=("continual", "retrieval", "objective"),
    headline="New models search the galleries of old ones: every class keeps its direction, a "
    "vertex of a fixed simplex (figures unconfirmed).",
)

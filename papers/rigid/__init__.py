from vision.papers import Paper

PAPER = Paper(
    title="RIGID: A Training-free and Model-Agnostic Framework for Robust AI-Generated Image "
    "Detection",
    year=2024,
    card=66,
    tags=("detection", "training-free"),
    headline="On average more than 25 % above the best rival that is not trained (unconfirmed).",
)

from vision.papers import Paper

PAPER = Paper(
    title="CNN Filter DB: An Empirical Investigation of Trained Convolutional Filters",
    year=2022,
    card=150,
    tags=("explain", "weights", "training-free"),
    headline="1.4 billion 3x3 filters of 647 models: tasks and image categories shift their "
    "distribution little, and many models carry degenerate layers.",
)

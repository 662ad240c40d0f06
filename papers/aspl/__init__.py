from vision.papers import Paper

PAPER = Paper(
    title=("Active Self-Paced Learning for Cost-Effective and Progressive Face Identification"),
    year=2017,
    card=60,
    tags=("active-learning", "self-paced"),
    headline=(
        "The accuracy of active learning on CACD and CASIA-WebFace with markedly fewer labels."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="UNEM: UNrolled Generalized EM for Transductive Few-Shot Learning",
    year=2025,
    card=99,
    tags=("few-shot", "transductive"),
    headline=(
        "Up to 10 % more than the iterative method with features of images alone, 7.5 % with CLIP."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="Deep Class-Incremental Learning: A Survey",
    year=2023,
    card=77,
    tags=("continual", "survey"),
    headline=(
        "Areas under average accuracy against memory, CIFAR-100 in ten tasks: FOSTER "
        "11.12, DER 10.74, iCaRL 10.81, GEM 4.31."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title=("Transfer of Representations to Video Label Propagation: Implementation Factors Matter"),
    year=2022,
    card=93,
    tags=("video", "representation"),
    headline=(
        "With tuned factors an ImageNet ResNet is about level with video self-supervision "
        "on DAVIS-2017 (J&F in the high 60s, unconfirmed)."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title=(
        "Revisiting pre-trained remote sensing model benchmarks: resizing and normalization matter"
    ),
    year=2023,
    card=171,
    tags=("transfer", "remote-sensing"),
    headline=(
        "So2Sat 56.2 to 88.5 % by resizing and standardisation, EuroSAT 82.1 to 91.2 % "
        "from 64 to 224 px."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="Vocabulary-free Image Classification",
    year=2023,
    card=49,
    tags=("zero-shot", "vision-language", "open-vocabulary"),
    headline=(
        "Names of no list by retrieved captions, ahead of BLIP-2 on average over ten data sets "
        "(figures unconfirmed)."
    ),
)

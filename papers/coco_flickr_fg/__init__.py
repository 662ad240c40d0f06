from vision.papers import Paper

PAPER = Paper(
    title="Rethinking Benchmarks for Cross-modal Image-text Retrieval",
    year=2023,
    card=115,
    tags=("image-text", "retrieval", "benchmark"),
    headline=(
        "Strong models lose many points of recall on finer galleries, most on details of "
        "things that look alike."
    ),
)

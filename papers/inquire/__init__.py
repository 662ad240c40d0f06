from vision.papers import Paper

PAPER = Paper(
    title="INQUIRE: A Natural World Text-to-Image Retrieval Benchmark",
    year=2024,
    card=184,
    tags=("image-text", "retrieval", "benchmark"),
    headline="No model reaches 50 mAP@50, reranking included.",
)

from vision.papers import Paper

PAPER = Paper(
    title="Arboretum: A Large Multimodal Dataset Enabling AI for Biodiversity",
    year=2024,
    card=178,
    tags=("dataset", "image-text", "hierarchy", "zero-shot"),
    headline="134.6 million photographs with seven ranks and two names each; a CLIP trained on 40 "
    "million of them is asked at every rank.",
)

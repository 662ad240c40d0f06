from vision.papers import Paper

PAPER = Paper(
    title="MOFI: Learning Image Representations from Noisy Entity Annotated Images",
    year=2023,
    card=105,
    tags=("image-text", "entities", "retrieval"),
    headline="86.66 mAP on GPR1200, where the best tower of CLIP has 72.19.",
)

from vision.papers import Paper

PAPER = Paper(
    title="DreamLIP: Language-Image Pre-training with Long Captions",
    year=2024,
    card=188,
    tags=("image-text", "captions"),
    headline=(
        "30 million pairs with long captions on a par with, or above, CLIP with 400 "
        "million in retrieval and segmentation."
    ),
)

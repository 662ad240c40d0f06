from vision.papers import Paper

PAPER = Paper(
    title=(
        "Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision"
    ),
    year=2021,
    card=13,
    tags=("image-text", "zero-shot", "retrieval"),
    headline=(
        "1.8 billion noisy pairs: 76.4 % zero-shot on ImageNet; Flickr30k R@1 88.6 % "
        "image to text, 75.7 % text to image."
    ),
)

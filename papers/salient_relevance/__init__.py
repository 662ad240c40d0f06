from vision.papers import Paper

PAPER = Paper(
    title=(
        "Beyond Saliency: Understanding Convolutional Neural Networks from Saliency "
        "Prediction on Layer-Wise Relevance Propagation"
    ),
    year=2019,
    card=22,
    tags=("explain", "attribution"),
    headline="Pictures of AlexNet and VGG-16; no number.",
)

from vision.papers import Paper

PAPER = Paper(
    title="Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    year=2016,
    card=14,
    tags=("architecture",),
    headline="ImageNet, one crop, top-1 error: Inception-v4 20.0 %, Inception-ResNet-v2 19.9, v1 "
    "21.3; residual networks train faster than pure ones of equal cost.",
)

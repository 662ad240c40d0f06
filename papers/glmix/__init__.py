from vision.papers import Paper

PAPER = Paper(
    title="Revisiting the Integration of Convolution and Attention for Vision Backbone",
    year=2024,
    card=123,
    tags=("architecture", "attention", "tokens"),
    headline="GLNet-4G 83.7 %, 9G 84.5, 16G 85.0 on ImageNet; in Swin-T's layout 82.5 beside 81.3.",
)

from vision.papers import Paper

PAPER = Paper(
    title="ULSAM: Ultra-Lightweight Subspace Attention Module for Compact Convolutional Neural "
    "Networks",
    year=2020,
    card=98,
    tags=("architecture", "attention", "efficiency", "fine-grained"),
    headline="MobileNet-V2 with 13 % fewer FLOPs and parameters: +0.27 points on ImageNet; with 25 "
    "% fewer more than +1 on fine-grained sets.",
)

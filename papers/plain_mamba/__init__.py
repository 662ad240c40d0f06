from vision.papers import Paper

PAPER = Paper(
    title="PlainMamba: Improving non-hierarchical Mamba in visual recognition",
    year=2024,
    card=64,
    tags=("architecture", "state-space"),
    headline="77.9, 81.6 and 82.3 % on ImageNet with 7, 25 and 50 million parameters.",
)

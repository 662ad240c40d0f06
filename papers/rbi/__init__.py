from vision.papers import Paper

PAPER = Paper(
    title="Enhancing Fine-grained Image Classification through Attentive Batch Training",
    year=2024,
    card=94,
    tags=("fine-grained", "objective", "attention"),
    headline="+2.78 points on CUB-200-2011 and +3.83 on Stanford Dogs on average over towers; "
    "95.79 % on Stanford Dogs.",
)

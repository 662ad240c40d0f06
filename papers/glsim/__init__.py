from vision.papers import Paper

PAPER = Paper(
    title="Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision "
    "Transformers",
    year=2024,
    card=74,
    tags=("fine-grained", "objective", "tokens"),
    headline="Favourable accuracy on ten fine-grained sets (figures unconfirmed); choosing a crop "
    "takes N D products instead of attention rollout's L N^3.",
)

from vision.papers import Paper

PAPER = Paper(
    title="Practical Continual Forgetting for Pre-trained Vision Models",
    year=2025,
    card=89,
    tags=("unlearning", "adaptation"),
    headline=(
        "Accuracy on forgotten classes near 0 with a small drop on those that remain, for faces, "
        "detection and ImageNet-100 (unconfirmed)."
    ),
)

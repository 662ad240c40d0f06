from vision.papers import Paper

PAPER = Paper(
    title="Geometry-aware adaptation for pretrained models",
    year=2023,
    card=50,
    tags=("zero-shot", "label-space"),
    headline=(
        "Up to 29.7 % better (relative) than SimCLR with argmax on ImageNet, 10.5 % on CLIP."
    ),
)

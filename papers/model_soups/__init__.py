from vision.papers import Paper

PAPER = Paper(
    title=(
        "Model soups: averaging weights of multiple fine-tuned models improves accuracy "
        "without increasing inference time"
    ),
    year=2022,
    card=138,
    tags=("fine-tuning", "weight-averaging"),
    headline=(
        "81.03 % on ImageNet by the greedy soup of 72 fine-tunes of CLIP ViT-B/32, 80.38 "
        "% by the best of them."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="Visual Classification via Description from Large Language Models",
    year=2022,
    card=18,
    tags=("zero-shot", "vision-language", "explain"),
    headline="ImageNet, CLIP ViT-B/32: 58.46 % by names, 62.97 by descriptors (unconfirmed).",
)

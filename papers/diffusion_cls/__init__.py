from vision.papers import Paper

PAPER = Paper(
    title="Do Text-free Diffusion Models Learn Discriminative Visual Representations?",
    year=2023,
    card=85,
    tags=("diffusion", "representation"),
    headline=(
        "71.89 % on ImageNet by an attention head on a frozen denoiser, 61.95 % by a "
        "linear one (unconfirmed)."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="Towards Practical Plug-and-Play Diffusion Models",
    year=2023,
    card=195,
    tags=("diffusion", "guidance"),
    headline=(
        "ImageNet at 256 px: FID and IS clearly better than by a classifier as it is, or "
        "tuned to all noise (numbers unconfirmed)."
    ),
    without={
        "claim.py": "five seeds take 500 s, most of it their denoisers: it waits for a trained one",
        "result.json": "there is no claim",
    },
)

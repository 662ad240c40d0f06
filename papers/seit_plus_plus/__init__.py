from vision.papers import Paper

PAPER = Paper(
    title="SeiT++: Masked Token Modeling Improves Storage-efficient Training",
    year=2024,
    card=131,
    tags=("storage", "masked-modelling"),
    headline="77.8 % on ImageNet-1k with about 1 % of the storage of pixels (unconfirmed).",
    without={
        "claim.py": "its tokenizer used 26 of 64 entries, whose ids hardly tell what a thing is",
        "result.json": "there is no claim",
    },
)

from vision.papers import Paper

PAPER = Paper(
    title="Res-VMamba: Fine-Grained Food Category Visual Classification Using Selective State "
    "Space Models with Deep Residual Learning",
    year=2024,
    card=107,
    tags=("architecture", "state-space", "fine-grained"),
    headline="79.54 % on CNFOOD-241 without pretrained weights.",
)

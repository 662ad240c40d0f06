from vision.papers import Paper

PAPER = Paper(
    title="When does dough become a bagel? Analyzing the remaining mistakes on ImageNet",
    year=2022,
    card=11,
    tags=("multi-label", "benchmark"),
    headline=(
        "Of 676 answers of a ViT-3B that its label calls wrong, nearly half are right; 378 are "
        "left, 154 of them major."
    ),
    without={
        "method.py": "a protocol: the evaluator is vision.evaluators.accuracy.mistakes",
        "config.py": "a protocol: nothing is trained but a linear classifier of the claim",
    },
)

from vision.papers import Paper

PAPER = Paper(
    title="Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine Unlearning",
    year=2024,
    card=200,
    tags=("unlearning",),
    headline=(
        "On worst-case sets the accuracy on what should be forgotten stays near 100 % for "
        "approximate methods."
    ),
)

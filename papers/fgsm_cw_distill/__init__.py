from vision.papers import Paper

PAPER = Paper(
    title=(
        "Evaluating Adversarial Robustness: A Comparison Of FGSM, Carlini-Wagner Attacks, "
        "And The Role of Distillation as Defense Mechanism"
    ),
    year=2024,
    card=193,
    tags=("adversarial", "distillation"),
    headline=(
        "Carlini-Wagner nearly always succeeds; defensive distillation helps against FGSM only."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="Why Representation-Space Attacks Fail to Transfer",
    year=2025,
    card=196,
    tags=("adversarial", "analysis"),
    headline=(
        "Attacks on representations succeed on their own model as those on data do, and hardly on "
        "others, unless their spaces are aligned (unconfirmed)."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="Single Image Backdoor Inversion via Robust Smoothed Classifiers",
    year=2023,
    card=204,
    tags=("adversarial", "backdoor"),
    headline=(
        "From one image, triggers are recovered whose success is close to that of the true ones, "
        "54 to 100 %, of five kinds of backdoors."
    ),
)

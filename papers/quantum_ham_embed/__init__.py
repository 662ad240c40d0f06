from vision.papers import Paper

PAPER = Paper(
    title="Quantum Hamiltonian embedding of images for data reuploading classifiers",
    year=2024,
    card=23,
    tags=("architecture", "quantum"),
    headline=(
        "94.4 % on digits of eight classes against 79.0 % of a quantum CNN; MNIST 91.3 "
        "against 47.0 %."
    ),
)

from vision.papers import Paper

PAPER = Paper(
    title="Deep Neural Networks are Easily Fooled: High Confidence Predictions for Unrecognizable "
    "Images",
    year=2015,
    card=6,
    tags=("adversarial", "training-free"),
    headline=(
        "Images evolved by CPPNs reach a median confidence of 88.11 % over ImageNet's classes, "
        "those evolved pixel by pixel 21.59 %; on MNIST both reach 99.99 %."
    ),
)

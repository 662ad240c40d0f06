from vision.papers import Paper

PAPER = Paper(
    title="Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    year=2017,
    card=17,
    tags=("explain", "attribution"),
    headline=(
        "VGG-16 localises ILSVRC val with an error of 56.51 (top-1) and 46.41 (top-5); "
        "CAM with 57.20 and 45.14."
    ),
)

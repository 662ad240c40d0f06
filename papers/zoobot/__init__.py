from vision.papers import Paper

PAPER = Paper(
    title="Practical Galaxy Morphology Tools from Deep Supervised Representation Learning",
    year=2022,
    card=166,
    tags=("galaxies", "active-learning", "representation"),
    headline=(
        "All of the 100 most interesting anomalies found; rings told better than from "
        "ImageNet at every number of labels."
    ),
)

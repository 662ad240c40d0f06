from vision.papers import Paper

PAPER = Paper(
    title=(
        "DendroMap: Visual Exploration of Large-Scale Image Datasets for Machine Learning "
        "with Treemaps"
    ),
    year=2022,
    card=157,
    tags=("exploration", "visualisation"),
    headline=("In a user study of 20 people preferred over a grid of t-SNE (number unconfirmed)."),
    without={
        "config.py": "nothing is trained: it draws the images of any run",
    },
)

from vision.papers import Paper

PAPER = Paper(
    title="FPGA: Fast Patch-Free Global Learning Framework for Fully End-to-End Hyperspectral "
    "Image Classification",
    year=2020,
    card=2,
    tags=("architecture", "segmentation", "hyperspectral", "sampling"),
    headline="More than 99 % of Pavia University's and Salinas' pixels from 200 per class "
    "(unconfirmed), in one pass over the whole image.",
)

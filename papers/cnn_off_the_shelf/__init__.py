from vision.papers import Paper

PAPER = Paper(
    title="CNN Features off-the-shelf: an Astounding Baseline for Recognition",
    year=2014,
    card=10,
    tags=("transfer", "retrieval"),
    headline=("SVMs on frozen CNN features: VOC07 mAP 73.9 to 77.2, Oxford5k 68.0 (unconfirmed)."),
)

from vision.papers import Paper

PAPER = Paper(
    title="Remote Sensing Image Scene Classification: Benchmark and State of the Art",
    year=2017,
    card=183,
    tags=("dataset", "features", "remote-sensing"),
    headline="45 classes of 700 aerial images: VGG16, fine-tuned, tells 87.2 % from a tenth of "
    "them and 90.4 from a fifth.",
)

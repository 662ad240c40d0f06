from vision.papers import Paper

PAPER = Paper(
    title=("Large-Scale Domain-Specific Pretraining for Biomedical Vision-Language Processing"),
    year=2023,
    card=147,
    tags=("image-text", "medical", "retrieval"),
    headline=(
        "Best on a suite of biomedical retrieval and classification; above BioViL on RSNA "
        "(figures unconfirmed)."
    ),
)

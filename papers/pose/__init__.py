from vision.papers import Paper

PAPER = Paper(
    title="Progressive open space expansion for open-set model attribution",
    year=2023,
    card=91,
    tags=("open-set", "forensics"),
    headline="Best AUC and OSCR on 15 known and 53 unknown generators (figures unconfirmed).",
)

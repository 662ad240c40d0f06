from vision.papers import Paper

PAPER = Paper(
    title="An Example",
    year=2017,
    card=None,
    tags=("example",),
    headline="What the authors report, in one sentence.",
)

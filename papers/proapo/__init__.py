from vision.papers import Paper

PAPER = Paper(
    title="ProAPO: Progressively Automatic Prompt Optimization for Visual Classification",
    year=2025,
    card=96,
    tags=("zero-shot", "vision-language", "prompts"),
    headline="Best of the methods that tune prompts as text on 13 data sets with one image a class "
    "(margins unconfirmed).",
)

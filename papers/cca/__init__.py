from vision.papers import Paper

PAPER = Paper(
    title="Conditional Cross Attention Network for Multi-Space Embedding without Entanglement in "
    "Only a SINGLE Network",
    year=2023,
    card=37,
    tags=("fine-grained", "objective", "retrieval", "attention"),
    headline="State of the art on FashionAI, DARN, DeepFashion and Zappos50K with one backbone for "
    "all attributes (figures unconfirmed).",
)

from vision.papers import Paper

PAPER = Paper(
    title="Exploring scalable medical image encoders beyond text supervision (RAD-DINO)",
    year=2025,
    card=170,
    tags=("self-supervised", "medical"),
    headline="882,775 films: at or above BioViL-T, BiomedCLIP and MRM in AUPRC on VinDr-CXR.",
)

from vision.papers import Paper

PAPER = Paper(
    title="TexTile: A Differentiable Metric for Texture Tileability",
    year=2024,
    card=199,
    tags=("metric", "texture", "attention", "generation"),
    headline="A classifier of textures that are laid side by side agrees with people where SSIM, "
    "LPIPS and FID do not, and its gradient mends textures.",
)

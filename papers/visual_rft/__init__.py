from vision.papers import Paper

PAPER = Paper(
    title="Visual-RFT: Visual Reinforcement Fine-Tuning",
    year=2025,
    card=95,
    tags=("reinforcement", "captioning", "detection"),
    headline=(
        "+24.3 % in one-shot fine-grained classification and +21.9 AP in two-shot "
        "detection on COCO over Qwen2-VL-2B."
    ),
)

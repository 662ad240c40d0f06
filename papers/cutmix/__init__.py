from vision.papers import Paper

PAPER = Paper(
    title=("CutMix: Regularization strategy to train strong classifiers with localizable features"),
    year=2019,
    card=207,
    tags=("augmentation", "robustness"),
    headline=(
        "ResNet-50 on ImageNet: 21.40 % error against 23.68 %; CIFAR-100, PyramidNet-200: 14.47 %."
    ),
    without={
        "method.py": "the method is vision.data.batch_ops.CutMix",
    },
)

from vision.papers import Paper

PAPER = Paper(
    title=("CNS-Bench: Benchmarking Image Classifier Robustness Under Continuous Nuisance Shifts"),
    year=2025,
    card=191,
    tags=("robustness", "benchmark"),
    headline=(
        "More than 40 classifiers under growing nuisances; their ranking changes with the "
        "shift and its scale."
    ),
    without={
        "method.py": "a protocol: the evaluator is vision.evaluators.robustness.severity",
    },
)

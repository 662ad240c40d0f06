"""Writes a page of heat maps: what a trained model sees in one's own images, by several methods.

    python -m vision.report.explain --workdir=workdirs/mine --images=photos
    python -m vision.report.explain --model=timm:resnet50.a1_in1k --images=photos --out=seen.html
    python -m vision.report.explain --workdir=workdirs/clip --images=photos --classes='cat,dog' \\
        --concepts=concepts.json --labelled=pets

Grad-CAM, relevance, gradient and integrated gradients side by side, for the likeliest classes of
each image and on average over each class; the class's probability while pixels are removed or
added in a map's order, beside a random order; the nearest training images, where the run's data are
here; of a dual encoder, concepts that the answer rests on, which can be switched off.
docs/explain.md says how to read it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vision.config.cli import UsageError, parse, run_main, whole_number
from vision.predict.options import FLAGS, check_source, loaded, text

LIMIT, TOP, STEPS, TRAINING, NEIGHBOURS = 24, 2, 10, 2000, 4


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    options = parse(
        arguments,
        __doc__ or "",
        ("images",),
        images="file, or folder of images",
        out="HTML file; explain.html in the workdir by default",
        limit=f"most images, evenly spread; {LIMIT} by default",
        top=f"classes of each image, the likeliest first; {TOP} by default",
        steps=f"of the deletion and insertion curves; {STEPS} by default, 0 for none",
        training=f"most training images to look for the nearest; {TRAINING} by default, 0 for none",
        concepts="JSON file with a list of concepts for every class, for a dual encoder",
        labelled="folder with a folder of images per class, which concepts are fitted to",
        **FLAGS,
    )
    check_source(options)
    workdir, out = text(options, "workdir"), text(options, "out")
    concepts, labelled = text(options, "concepts"), text(options, "labelled")
    if (concepts is None) != (labelled is None):
        raise UsageError("--concepts and --labelled go together: lists, and images to fit them to")
    if out is None and workdir is None:
        raise UsageError("--out=FILE.html is required with --model (see --help)")
    limit, top, steps, training = (
        default if getattr(options, name) is False else whole_number(name, getattr(options, name))
        for name, default in (
            ("limit", LIMIT), ("top", TOP), ("steps", STEPS), ("training", TRAINING),
        )
    )  # fmt: skip
    if limit < 1 or top < 1:
        raise UsageError("--limit and --top are at least 1")
    from vision.report.explain_page import explain_images, render
    from vision.report.files import write_page

    predictor = loaded(options)
    print(f"{predictor.source}; preprocessing: {predictor.preprocessing}", flush=True)
    explained = explain_images(
        predictor, str(options.images), limit=limit, top=top, steps=steps, training=training,
        concepts=(concepts, labelled) if concepts and labelled else None,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    name = Path(workdir).resolve().name if workdir else str(text(options, "model"))
    where = Path(out) if out else Path(str(workdir)) / "explain.html"
    print(write_page(where, render(explained, name)))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

"""The retrieval page: search a gallery with sentences and pictures, as a trained run ranks it.

    python -m vision.report.retrieval --workdir=workdirs/clip_scenes
    python -m vision.report.retrieval --workdir=workdirs/clip_scenes --data=my_pictures --port=0

The gallery is the data of the run's retrieval evaluator (the one called ``retrieval``, else the
first), of another evaluator that --data names, or the JPEG and PNG files below a folder that
--data names. Training data is not opened. Everything is embedded once; then the page is served on
loopback until Ctrl-C. Endpoint and limits: docs/retrieval.md.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision.config.cli import help_first

PORT, LIMIT, MAX_LIMIT = 8008, 5000, 200_000
FLAGS = {
    "workdir": "folder of a run",
    "data": "evaluator, or folder of JPEG and PNG files; the retrieval evaluator by default",
    "limit": f"most images of the gallery, 1 to {MAX_LIMIT}; {LIMIT} by default",
    "step": "of the checkpoint, or best; the newest valid one by default",
    "port": f"{PORT} by default; 0 takes a free one",
    "host": "address to listen at; 127.0.0.1 by default",
    "public": "needed for a --host that other machines can reach",
}
if __name__ == "__main__":
    help_first(__doc__, FLAGS)

import jax

from vision.checkpoint.retention import named_step
from vision.config.cli import UsageError, parse, run_main, whole_number
from vision.config.errors import UserError
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.combine import Subset
from vision.data.tokenize import Tokenizer
from vision.evaluators.image_text.embeddings import spread
from vision.evaluators.image_text.retrieval import ImageTextRetrieval
from vision.objectives.contrast import Contrast
from vision.report.retrieval_index import Index
from vision.report.retrieval_page import render
from vision.report.retrieval_pictures import ImageFolder, Prepare
from vision.report.retrieval_server import application
from vision.report.server import bind, listening
from vision.report.server import run as serve
from vision.run.restore import Run, load_run


class RetrievalError(UserError):
    """This run, or this gallery, cannot be searched."""


def open_index(
    workdir: Path, *, data: str = "", limit: int = LIMIT, step: int | None = None
) -> tuple[Index, list[str]]:
    """Reads a run and embeds a gallery.

    Args:
      workdir: of a run with the objective ``Contrast``.
      data: an evaluator's name, or a folder of pictures; empty for the retrieval evaluator.
      limit: most images, evenly spread over what there is.
      step: of the checkpoint; None for the newest valid one.

    Returns:
      The index, and sentences about what is not in it.

    Raises:
      RetrievalError: no dual encoder, or no gallery.
      DataError: the gallery cannot be read.
    """
    run = load_run(workdir, step)
    if not isinstance(run.experiment.objective, Contrast):
        kind = type(run.experiment.objective).__name__
        raise RetrievalError(f"{workdir} is a run of {kind}; the page needs the objective Contrast")
    evaluator, tokenizer = _evaluator(run, workdir, data)
    eval_data, feature = evaluator.data, getattr(evaluator, "image", "image")
    if not isinstance(eval_data, EvalData):
        raise RetrievalError(f"{workdir}: the evaluator's data is {type(eval_data).__name__}")
    prepare = Prepare.like(eval_data.source, eval_data.ops, feature)
    files = bool(data) and data not in (run.experiment.evaluators or {})
    if files:
        eval_data = dataclasses.replace(
            eval_data, source=ImageFolder.below(Path(data), prepare), on_error="mask"
        )
    notes = []
    total = len(eval_data.source)
    if total > limit:
        chosen = tuple(spread(limit, total).tolist())
        eval_data = dataclasses.replace(eval_data, source=Subset(eval_data.source, chosen))
        notes.append(f"{limit:,} of {total:,} images, evenly spread; --limit takes more.")
    captions = isinstance(evaluator, ImageTextRetrieval) and not files
    with jax.set_mesh(run.mesh):
        index = Index.of(run, eval_data, tokenizer, prepare, captions)
        if index.captions:  # compiles what sentences need, before anyone waits for it
            index.rank_images(index.ask(index.captions[0]), 1)
    if unread := min(limit, total) - len(index) - index.left_out["images"]:
        notes.append(f"{unread:,} image(s) could not be read and are left out: {_why(index)}")
    for what, count in index.left_out.items():
        if count:
            empty = "without a finite embedding" if what == "images" else "empty or not finite"
            notes.append(f"{count:,} {what} {empty} are left out.")
    return index, notes


def _evaluator(run: Run, workdir: Path, data: str) -> tuple[Any, Tokenizer]:
    """The evaluator whose data, ops and tokenizer are taken."""
    evaluators: dict[str, Any] = dict(run.experiment.evaluators or {})
    usable = {k: e for k, e in evaluators.items() if hasattr(e, "data")}
    pairs = [k for k, e in usable.items() if isinstance(e, ImageTextRetrieval)]
    if not pairs:
        raise RetrievalError(
            f"{workdir}: the config has no ImageTextRetrieval evaluator, whose tokenizer and data "
            "the page takes; it has " + (", ".join(evaluators) or "none")
        )
    first = usable["retrieval" if "retrieval" in pairs else pairs[0]]
    if not data:
        return first, first.tokenizer
    if data in usable:
        return usable[data], first.tokenizer
    if Path(data).is_dir():
        return first, first.tokenizer
    raise RetrievalError(
        f"--data={data} is neither a folder of pictures nor an evaluator with data: "
        f"{', '.join(usable)}"
    )


def _why(index: Index) -> str:
    """The first reason why an image of the gallery is missing."""
    indexed = set(index.place.tolist())
    for i in range(len(index.data.source)):
        if i not in indexed:
            try:
                index.data.source[i]
            except DataError as error:
                return str(error)
    return "the data's ops refuse them"


def main(arguments: Sequence[str]) -> int:
    options = parse(
        list(arguments),
        __doc__ or "",
        required=("workdir",),
        **FLAGS,
    )
    host, port = listening(options, PORT, "the gallery")
    limit = whole_number("limit", options.limit) or LIMIT
    if limit > MAX_LIMIT:
        raise UsageError(f"--limit={limit}: at most {MAX_LIMIT}")
    step = named_step(Path(options.workdir), options.step or None)
    bound = bind(host, port)
    with bound:
        start = time.perf_counter()
        index, notes = open_index(
            Path(options.workdir), data=str(options.data or ""), limit=limit, step=step
        )
        page, policy = render(index, Path(options.workdir).resolve().name, notes)
        print(f"{len(index):,} images embedded in {time.perf_counter() - start:.1f} s")
        print("\n".join(f"- {note}" for note in notes), end="\n" if notes else "")
        serve(application(index, page, policy, host), bound, host, "retrieval page", "the gallery")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

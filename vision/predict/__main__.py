"""Says what a trained run sees in images: a row per image, with the likeliest classes.

    python -m vision.predict --workdir=workdirs/mine images/ more.jpg --out=predictions.csv
    python -m vision.predict --workdir=workdirs/mine images/ --out=all.jsonl --top=all
    python -m vision.predict --workdir=workdirs/mine images/ --embeddings=embeddings.npz
    python -m vision.predict --workdir=workdirs/clip images/ --out=p.csv --classes="a cat,a dog"

Images are files and folders, which are walked. An image that cannot be read is named and has a row
with its error. --out is written beside itself and gets its name when it is complete; nothing else
is written. docs/predict.md has the columns and the same in Python. Exit status: 0, 1 with
--fail_on_error when an image could not be read, 2 for wrong arguments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vision.config.cli import UsageError, parse, run_main, whole_number
from vision.predict.options import FLAGS, check_source, loaded, text

if TYPE_CHECKING:
    from vision.predict.predictor import Predictor

# Seconds between lines of progress, on a terminal and elsewhere.
_TERMINAL_S, _ELSEWHERE_S = 0.5, 30.0


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    flags = [each for each in arguments if each.startswith("-")]
    images = [each for each in arguments if not each.startswith("-")]
    options = parse(
        flags,
        __doc__ or "",
        (),
        **FLAGS,
        out="file for the predictions: .csv, .jsonl or .parquet",
        embeddings=".npz for embeddings, files and errors",
        top="how many of the likeliest classes, 5 by default; all: every class, in their order",
        fail_on_error="exit with 1 when an image could not be read",
    )
    return _predict(options, images)


def _predict(options: SimpleNamespace, given: list[str]) -> int:
    out, vectors = text(options, "out"), text(options, "embeddings")
    check_source(options)
    if out is None and vectors is None:
        raise UsageError("--out=FILE.csv is required, or --embeddings=FILE.npz (see --help)")
    if not given:
        raise UsageError("there are no images: name files, or folders with images (see --help)")
    if options.fail_on_error not in (True, False):
        raise UsageError("--fail_on_error takes no value")
    top = _top(text(options, "top") or "5")
    from vision.predict.images import gather
    from vision.predict.write import check, shown

    # What needs no model comes first: reading one takes seconds.
    check(out, vectors)
    images, left_out = gather(given)
    predictor = loaded(options)
    images = dataclasses.replace(images, mode=predictor.preprocessing.mode)
    print(f"{predictor.source}; preprocessing: {predictor.preprocessing}")
    if left_out:
        print(shown(left_out))
    bad = _write(predictor, images, out, vectors, top)
    return 1 if bad and options.fail_on_error else 0


def _write(
    predictor: Predictor, images: Any, out: str | None, vectors: str | None, top: int | None
) -> int:
    """Writes the files; returns how many images have an error."""
    from vision.predict.write import embeddings_writer, writer
    from vision.run.log import rate

    started = time.perf_counter()
    done, bad = 0, 0
    progress = _Progress(len(images))
    with contextlib.ExitStack() as stack:
        writers = []
        if out is not None:
            opened = writer(Path(out), predictor.classes, top, predictor.num_numbers)
            writers.append(stack.enter_context(opened))
        if vectors is not None:
            writers.append(stack.enter_context(embeddings_writer(Path(vectors), len(images))))
        rows = predictor.stream(
            images, probabilities=bool(out), embeddings=bool(vectors), on_error="keep"
        )
        for part in rows:
            for write in writers:
                write(part)
            for file, error in zip(part.files, part.errors, strict=True):
                if error is not None:
                    bad += 1
                    progress.say(f"{file}: {error}")
            done += len(part)
            progress.show(done, bad)
    progress.end()
    took = time.perf_counter() - started
    counted = f", {bad} with an error" if bad else ""
    written = " and ".join(name for name in (out, vectors) if name)
    images_read = f"{done:,} image{'' if done == 1 else 's'}"
    print(f"{images_read}{counted} in {took:.1f} s ({rate(done / took)}/s): {written}")
    return bad


class _Progress:
    """A line on stderr that says how far it is: rewritten on a terminal, now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._started = self._last = time.perf_counter()

    def show(self, done: int, bad: int) -> None:
        now = time.perf_counter()
        if now - self._last < (_TERMINAL_S if self._terminal else _ELSEWHERE_S):
            return
        self._last = now
        from vision.run.log import rate

        per_second = done / (now - self._started)
        left = (self._total - done) / per_second
        errors = f", {bad} with an error" if bad else ""
        line = f"{done:,} of {self._total:,} images{errors}, "
        line += f"{rate(per_second)}/s, {left:,.0f} s left"
        print(f"\r{line}\033[K" if self._terminal else line, file=sys.stderr, end=self._end)

    def say(self, line: str) -> None:
        """A line of its own, above the line of progress."""
        self.end()
        from vision.predict.write import shown

        print(shown(line), file=sys.stderr)

    def end(self) -> None:
        if self._terminal:
            print("\r\033[K", file=sys.stderr, end="", flush=True)

    @property
    def _end(self) -> str:
        return "" if self._terminal else "\n"


def _top(given: str) -> int | None:
    if given == "all":
        return None
    count = whole_number("top", given)
    if count < 1:
        raise UsageError(f"--top={given}: at least 1, or all")
    return count


def console() -> None:
    """The command that an installation puts on the path."""
    sys.exit(run_main(main, sys.argv[1:]))


if __name__ == "__main__":
    console()

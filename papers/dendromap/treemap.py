"""The page of DendroMap: a large image set as a treemap of likeness.

    python -m papers.dendromap.treemap --workdir=workdirs/mine --out=map.html

The page draws the treemap of ``papers.dendromap.method``. A click zooms; classes, mistakes and
single records can be searched for. Beyond 5,000 images the finest clusters are those of bisecting
2-means (see ``papers.dendromap.ward``), and a bounded sample of the images has thumbnails.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

from vision.config.cli import UsageError, help_first, parse, run_main

FLAGS = {
    "workdir": "run whose evaluation data is shown",
    "evaluator": "of the run; its first Classification by default",
    "kept": "folder of evaluate.py --features, for a run",
    "features": "without a run: .npy, (N, D)",
    "labels": ".npy, (N,) whole numbers",
    "predictions": ".npy, (N,) whole numbers",
    "images": ".npy, (N, H, W[, C]), for thumbnails",
    "keys": "text file, a name per line",
    "out": "HTML file",
}
if __name__ == "__main__":
    help_first(__doc__, FLAGS)

import jax
import numpy as np
from markupsafe import Markup
from PIL import Image

from papers.dendromap.method import ORDERS, Tree
from papers.dendromap.subgroups import worst_subgroup
from papers.dendromap.ward import ward
from vision.config.errors import UserError
from vision.evaluate.evaluator import context
from vision.evaluators.accuracy.classification import classification_of
from vision.evaluators.features.store import FeatureStore
from vision.evaluators.image_text.embeddings import embed
from vision.evaluators.thumbnail import thumbnail
from vision.metrics import arrays
from vision.report.files import write_page
from vision.report.numbers import percent
from vision.report.page import data_block, exact, note, page, table, tag
from vision.run.restore import load_run

SIDE_PX = 32
COLUMNS = 32  # thumbnails in a row of a sheet
SAMPLE = 2048
LEAST = 20  # labelled images of a subgroup


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """What is shown.

    Attributes:
      features: (N, D), what is clustered.
      keys: N names of records; None for their numbers.
      labels: (N,) int, true classes, -1 for none; None where they are not known.
      predictions: (N,) int, predicted classes; None where there are none.
      class_names: by label; the numbers where it is empty.
      picture: of a record, [H, W] or [H, W, C], or its encoded file; None for no thumbnails.
    """

    features: np.ndarray
    keys: Sequence[str] | None = None
    labels: np.ndarray | None = None
    predictions: np.ndarray | None = None
    class_names: Sequence[str] = ()
    picture: Callable[[int], np.ndarray | bytes] | None = None

    def __post_init__(self) -> None:
        for name in ("keys", "labels", "predictions"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.features):
                raise UserError(
                    f"{name} has {len(value):,} entries for {len(self.features):,} features"
                )
            if name != "keys" and value is not None:
                array = np.asarray(value)
                if array.ndim != 1 or array.dtype.kind not in "iu":
                    raise UserError(
                        f"{name} is {array.dtype}{list(array.shape)}; a class number per record, "
                        "int (N,), is needed"
                    )


def write_dendromap(images: Images, out: Path, *, title: str = "Images by likeness") -> Path:
    """Writes the explorer as one file that needs no other, and returns ``out``.

    Raises:
      UserError: features that are not finite or not (N, D), or a place that cannot be written.
    """
    tree = ward(images.features)
    order, start = tree.order()
    body = [("map", "", _map(images, tree, order, start))]
    if images.labels is not None:
        body.append(("classes", "Classes", _classes(images)))
    n = len(order)
    subtitle = f"{n:,} images, {tree.leaves:,} finest clusters"
    return write_page(out, page(title, subtitle, body, parts=("page", "dendromap")))


def _map(images: Images, tree: Tree, order: np.ndarray, start: np.ndarray) -> Markup:
    n = len(order)
    sheets, places = _sheets(images, order)
    correct = _correct(images)
    data = {
        "leaves": tree.leaves,
        "children": tree.children.tolist(),
        "distance": [float(f"{d:.6g}") for d in tree.distance.tolist()],
        "count": tree.count.tolist(),
        "start": start.tolist(),
        "keys": [str(images.keys[i]) if images.keys else str(i) for i in order.tolist()],
        "labels": None if images.labels is None else images.labels[order].tolist(),
        "predictions": None if correct is None else np.asarray(images.predictions)[order].tolist(),
        "names": list(images.class_names),
        "sample": places,
        "side": SIDE_PX,
        "columns": COLUMNS,
        "perSheet": COLUMNS * COLUMNS,
        "worst": None,
    }
    labelled = None if images.labels is None else np.asarray(images.labels) >= 0
    if correct is not None and labelled is not None and labelled.sum() >= LEAST:
        data["worst"] = worst_subgroup(tree, correct, LEAST, labelled)[0]
    style = "".join(
        f".sheet{i}{{background-image:url(data:image/jpeg;base64,{sheet})}}"
        for i, sheet in enumerate(sheets)
    )
    options = [tag("option", by.replace("_", " "), value=by) for by in ORDERS]
    shades = [tag("option", "nothing", value="")]
    if images.labels is not None:
        shades.append(tag("option", "most frequent class", value="class"))
    if correct is not None:
        shades.append(tag("option", "mistakes", value="error"))
    cells = {"type": "range", "min": "2", "max": "120", "value": "24"}
    controls = [
        tag("label", "cells ", tag("input", id="cells", **cells), tag("output", "24")),
        tag("label", "split first ", tag("select", *options, id="by")),
        tag("label", "colour ", tag("select", *shades, id="shade")),
        tag("label", "find ", tag("input", id="find", type="search", placeholder="id or class")),
    ]
    if data["worst"] is not None:
        controls.append(tag("button", "Worst subgroup", type="button", id="worst"))
    remark = f"Thumbnails of {len(places):,} of {n:,} images, evenly over the tree."
    return tag(
        "div",
        tag("style", Markup(style)),
        tag("div", *controls, class_="filters"),
        tag("nav", id="path", aria_label="Zoomed into"),
        tag("p", id="status", role="status", class_="readout"),
        tag("div", id="treemap", class_="treemap"),
        note(remark if places else "No thumbnails were given."),
        tag("div", id="members", class_="members"),
        data_block(data),
        class_="dendromap",
    )


def _correct(images: Images) -> np.ndarray | None:
    if images.labels is None or images.predictions is None:
        return None
    return np.asarray(images.labels) == np.asarray(images.predictions)


def _sheets(images: Images, order: np.ndarray) -> tuple[list[str], list[int]]:
    """JPEG sheets in base64, and places in the order of the tree of the thumbnails on them."""
    if images.picture is None:
        return [], []
    count = min(SAMPLE, len(order))
    places = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int)).tolist()
    sheets, size = [], COLUMNS * COLUMNS
    for first in range(0, len(places), size):
        part = places[first : first + size]
        rows = -(-len(part) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * SIDE_PX, rows * SIDE_PX), (128, 128, 128))
        for i, place in enumerate(part):
            png = thumbnail({"image": images.picture(int(order[place]))}, size_px=256)
            with Image.open(io.BytesIO(png)) as small:
                fitted = small.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
            sheet.paste(fitted, (i % COLUMNS * SIDE_PX, i // COLUMNS * SIDE_PX))
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=85)
        sheets.append(base64.b64encode(file.getvalue()).decode())
    return sheets, places


def _classes(images: Images) -> Markup:
    labels = np.asarray(images.labels)
    predictions = None if images.predictions is None else np.asarray(images.predictions)
    rows = []
    for k in np.unique(labels[labels >= 0]).tolist():
        members = labels == k
        name = images.class_names[k] if k < len(images.class_names) else str(k)
        row = [name, f"{members.sum():,}"]
        if predictions is not None:
            share = float((predictions[members] == k).mean())
            row += [f"{(predictions == k).sum():,}", exact(percent(share), share)]
        rows.append(row)
    heads = ["class", "true"] + (["predicted", "accuracy"] if predictions is not None else [])
    return table(heads, rows, numeric=range(1, len(heads)))


def of_run(workdir: Path, evaluator: str | None = None, kept: Path | None = None) -> Images:
    """The evaluation data of a run, by the features of its model.

    Args:
      workdir: folder of a run of a classifier, its newest checkpoint.
      evaluator: name of a ``Classification`` in its config; None for the first.
      kept: folder of a feature store (``evaluate.py --features``); None to compute them.

    Raises:
      UserError: no run there, or no such evaluator.
    """
    run = load_run(workdir)
    _, of = classification_of(run.experiment.evaluators, workdir, evaluator)
    store = FeatureStore.of(run, workdir, kept) if kept else None
    with jax.set_mesh(run.mesh):
        ctx = context(run.variables, run.step, run.mesh, store=store)
        rows = embed(run.predict, ctx, of.data, ("embedding", "logits"), (of.label,))
    source, places = of.data.source, rows["_index"]
    return Images(
        rows["embedding"],
        keys=[str(source.key(int(i))) for i in places],
        labels=rows[of.label],
        predictions=arrays.predictions(rows["logits"]),
        class_names=source.info.class_names,
        picture=lambda i: source[int(places[i])][of.image],
    )


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    options = parse(arguments, __doc__ or "", required=("out",), **FLAGS)
    if bool(options.workdir) == bool(options.features):
        raise UsageError("give --workdir, a run, or --features, an array: one of them")
    if options.workdir:
        kept = _path(options, "kept")
        images = of_run(Path(options.workdir), options.evaluator or None, kept)
    else:
        images = _of_files(options)
    of = Path(options.workdir or options.features).resolve().name
    print(write_dendromap(images, Path(options.out), title=f"{of}: images by likeness"))
    return 0


def _path(options: SimpleNamespace, flag: str) -> Path | None:
    value = getattr(options, flag)
    if value is True:
        raise UsageError(f"--{flag} needs a value: --{flag}=...")
    return Path(value) if value else None


def _of_files(options: SimpleNamespace) -> Images:
    loaded = [_load(_path(options, n)) for n in ("features", "labels", "predictions")]
    features, labels, predictions = loaded
    pictures, keys = _load(_path(options, "images")), _path(options, "keys")
    assert features is not None
    try:
        names = keys.read_text(encoding="utf-8").splitlines() if keys else None
    except OSError as error:
        raise UserError(f"{keys}: {error.strerror}") from error
    picture = None if pictures is None else (lambda i: pictures[i])
    return Images(features, names, labels, predictions, picture=picture)


def _load(path: Path | None) -> np.ndarray | None:
    if path is None:
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no .npy file that can be read: {error}") from error


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

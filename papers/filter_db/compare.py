"""The page of filter statistics: several networks beside each other.

    python -m papers.filter_db.compare --models=zoo:emoji_cnn,zoo:emoji_clip --out=filters.html
    python -m papers.filter_db.compare --models=workdirs/mine,timm:resnet18.a1_in1k --out=f.html

Entropy, sparsity and orthogonality of every 3x3 layer over the depth, the shift between the
filters of every two networks, and the principal components of all of them
(``papers.filter_db.method`` says what they are). Models are runs or weights as ``vision.load``
takes them, separated by commas.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from vision.config.cli import UsageError, help_first, parse, run_main

FLAGS = {"models": "runs or weights, separated by commas", "out": "HTML file"}
if __name__ == "__main__":
    help_first(__doc__, FLAGS)

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from papers.filter_db.evaluator import LEAST, measured, over_depth
from papers.filter_db.filters import layers_of
from papers.filter_db.method import FilterError, Layer, scaled, shifts
from vision.evaluate.figures import Curve, Line
from vision.predict.load import load
from vision.predict.predictor import Predictor
from vision.report.charts import line_chart
from vision.report.files import write_page
from vision.report.numbers import percent
from vision.report.page import Content, exact, inline_picture, note, page, table, tag

HOW = (
    "Entropy is that of the directions in which a layer's filters vary, divided by the least that "
    "as many random filters have: from 1 on a layer looks untrained, near 0 its filters repeat "
    "each other. Sparsity is the share of filters near zero; orthogonality is 1 where outputs read "
    "their inputs in unrelated ways."
)
FAR = (
    "The shift adds up, over the principal components of all filters, how far the histograms of "
    "two networks lie apart (Kullback-Leibler, both ways), weighted by the share of variance. "
    "Histograms of few filters differ by chance, too."
)
_SIDE_PX = 72


def layers_of_model(predictor: Predictor) -> list[Layer]:
    """The 3x3 layers of a loaded model.

    Raises:
      FilterError: there is none; the message begins with the model.
    """
    rows = predictor.mesh.size
    batch = {
        "image": jax.ShapeDtypeStruct(
            (rows, *predictor.preprocessing.shape), predictor.preprocessing.dtype
        ),
        "_mask": jax.ShapeDtypeStruct((rows,), jnp.bool_),
        "_index": jax.ShapeDtypeStruct((rows,), jnp.int32),
    }
    try:
        with jax.set_mesh(predictor.mesh):
            return layers_of(predictor.forward, predictor.variables, batch)
    except FilterError as error:
        raise FilterError(f"{predictor.source}: {error}") from error


def render(models: Mapping[str, Sequence[Layer]]) -> str:
    """The whole HTML document.

    Args:
      models: name to its layers.

    Raises:
      FilterError: a network without a layer of at least four filters.
    """
    found = {name: measured(list(layers)) for name, layers in models.items()}
    charts = []
    for i, what in enumerate(("Entropy", "Sparsity", "Orthogonality")):
        lines = tuple(
            Line(name, line.x, line.y)
            for name, (layers, measures) in found.items()
            for line in [over_depth(layers, measures)[i]]
        )
        charts.append(line_chart(what, Curve(lines, "depth", what.lower()), smooth=False))
    rows = [
        (
            name,
            layer.name,
            exact(f"{q.filters:,}", q.filters),
            exact(f"{q.ratio:.3f}", q.ratio),
            exact(percent(q.sparsity), q.sparsity),
            exact(f"{q.orthogonality:.3f}", q.orthogonality),
        )
        for name, (layers, measures) in found.items()
        for layer, q in zip(layers, measures, strict=True)
    ]
    columns = ("model", "layer", "filters", "entropy, of random", "sparsity", "orthogonality")
    apart = shifts([scaled(layers) for layers, _ in found.values()])
    names = tuple(found)
    matrix = [
        (name, *(exact(f"{d:.3f}", d) for d in row))
        for name, row in zip(names, apart.distance.tolist(), strict=True)
    ]
    distances = table(("shift", *names), matrix, numeric=tuple(range(1, len(names) + 1)))
    sections: list[tuple[str, str, Content]] = [
        ("depth", "Layers over the depth",
         tag("div", note(HOW), tag("div", *charts, class_="cards"), class_="stack")),
        ("shift", "Shift between models", tag("div", note(FAR), distances, class_="stack")),
        ("components", "Principal components", _components(apart.components, apart.share)),
        ("layers", "All layers", table(columns, rows, numeric=(2, 3, 4, 5))),
    ]  # fmt: skip
    count = sum(len(layer.filters) for layers in models.values() for layer in layers)
    return page("Filters", f"{len(models)} models · {count:,} filters of 3x3", sections)


def _components(components: np.ndarray, share: np.ndarray) -> Content:
    figures = []
    for i, (each, part) in enumerate(zip(components, share, strict=True)):
        reach = np.abs(each).max() or 1.0
        grey = np.rint(127.5 + 127.5 * each / reach).astype(np.uint8)
        image = Image.fromarray(grey).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.NEAREST)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        alt = f"Principal component {i + 1}"
        figures.append(
            tag(
                "figure",
                tag("img", src=inline_picture(buffer.getvalue()), alt=alt, class_="small"),
                tag("figcaption", f"{i + 1}: {percent(float(part))} of the variance"),
            )
        )
    about = note("Of the filters of all models together; grey is 0.")
    return tag("div", about, tag("div", *figures, class_="gallery"), class_="stack")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    options: SimpleNamespace = parse(arguments, __doc__ or "", ("models", "out"), **FLAGS)
    names = [name.strip() for name in str(options.models).split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"--models={options.models}: names of models, each once")
    models = {name: layers_of_model(load(name)) for name in names}
    for name, layers in models.items():
        small = sum(len(layer.filters) < LEAST for layer in layers)
        left = f", {small} of fewer than {LEAST} filters" if small else ""
        print(f"{name}: {len(layers)} layers of 3x3{left}", flush=True)
    print(write_page(Path(str(options.out)), render(models)))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

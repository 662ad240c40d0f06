"""What pages about several runs share: curves, differences of configs, parallel coordinates."""

from __future__ import annotations

import re

import numpy as np

from vision.report.files import Series
from vision.report.parallel_coordinates import Row, parallel_coordinates
from vision.report.several_runs import config_differences, overlaid


def test_curves_that_two_runs_have_are_laid_over_each_other():
    steps = np.arange(3.0)
    a = {"train/loss": Series(steps, 3 - steps), "test/top1": Series(steps, steps / 3)}
    b = {**a, "test/ece": Series(steps, steps / 9), "seconds/start": Series(steps, steps)}
    page = overlaid([("first", a), ("second", b)])
    headings = re.findall(r"<h3>(.*?)</h3>", page)
    assert headings == ["Loss", "Top-1 accuracy (test/top1)"]
    assert "last step 2: first 66.67%, second 66.67%" in page
    many = overlaid([(f"run {i}", a) for i in range(8)])
    assert "The first 6 runs are drawn, 2 are not." in many
    assert "run 5" in many
    assert "run 6" not in many


def test_places_where_configs_differ():
    first = {"_constructor": "a.B", "seed": 0, "ops": [{"_constructor": "x.Crop", "size": 8}]}
    second = {"_constructor": "a.B", "seed": 0, "ops": [{"_constructor": "x.Flip"}], "ema": None}
    page = config_differences([("p", first), ("q", second), ("r", None)])
    cells = re.findall(r"<code>(.*?)</code>", page)
    rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
    assert rows == [
        ["ops[0]", "Crop", "Flip", "-"],
        ["ops[0].size", "8", "-", "-"],
        ["ema", "-", "null", "-"],
    ]
    assert "No config could be read of: r." in page
    assert "do not differ" in config_differences([("p", first), ("q", first)])


def test_parallel_coordinates_have_an_axis_per_column():
    rows = [
        Row("a", ("1e-4", "adam", 0.5), "c0"),
        Row("b", ("1e-2", "sgd", 0.7)),
        Row("c", ("1e-3", None, 0.6)),
    ]
    page = parallel_coordinates("All", ("rate", "method", "test/top1"), rows)
    lines = dict(re.findall(r'<path d="(M[^"]*)" class="line[^"]*"><title>(\w)', page))
    paths = {name: path for path, name in lines.items()}
    assert paths["c"].count("M") == 2, "a missing value leaves a gap"
    first = {
        name: float(path.split()[1].split("L")[0].split("M")[0]) for name, path in paths.items()
    }
    # Logarithmic: the middle of the powers of ten is the middle of the axis.
    assert first["c"] * 2 == first["a"] + first["b"]
    assert ">adam</text>" in page
    assert ">0.0001</text>" in page

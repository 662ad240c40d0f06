"""What pages about several runs share: curves, differences of configs, parallel coordinates."""

from __future__ import annotations

import re

import numpy as np
import pytest

from vision.report.files import Series
from vision.report.parallel_coordinates import Row, parallel_coordinates
from vision.report.scatter import Point, scatter
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
    across, down = re.findall(r"<svg.*?</svg>", page)
    line = r'<path d="(M[^"]*)" class="line[^"]*"><title>(\w)'
    drawn = [{name: path for path, name in re.findall(line, svg)} for svg in (across, down)]
    for paths in drawn:
        assert paths["c"].count("M") == 2, "a missing value leaves a gap"
    starts = [
        {name: [float(x) for x in re.findall(r"[\d.]+", path)[:2]] for name, path in paths.items()}
        for paths in drawn
    ]
    # Logarithmic: the middle of the powers of ten is the middle of the axis. The same place of
    # each line, upwards where axes stand side by side and to the right where they lie.
    for name, value in (("a", 0.0), ("b", 1.0), ("c", 0.5)):
        (x, up), (right, y) = starts[0][name], starts[1][name]
        assert (x, y) == (0.0, pytest.approx(1000 / 6, abs=0.1))
        assert right == pytest.approx(1000 - up, abs=0.2)
        assert abs(right - 1000 * value) <= (0.2 if value == 0.5 else 100)
    assert page.count(">adam</span>") == 2
    assert page.count(">0.0001</span>") == 2


def test_lines_that_lie_on_each_other_are_dashed():
    steps = np.arange(3.0)
    a, b = Series(steps, steps / 3), Series(steps[:2], steps[:2] / 5)
    page = overlaid([("p", {"x/top1": a}), ("q", {"x/top1": a}), ("r", {"x/top1": b})])
    assert page.count("stroke-dasharray") == 1
    assert "q lies on p, dashed." in page
    assert "last step 2: p 66.67%, q 66.67%, r 20.00% (at 1)" in page


def test_points_in_one_place_stand_side_by_side():
    def point(number: int, x: float) -> Point:
        return Point(number, f"run {number}", x, 0.5)

    page = scatter("All", [point(1, 100), point(2, 100), point(3, 900)], "FLOPs", "top1")
    moved = re.findall(r'margin-left:([-\d.]+)em" title="run (\d)', page)
    assert [name for _, name in moved] == ["1", "2"]
    assert float(moved[0][0]) == -float(moved[1][0]) < 0
    assert "Moved aside, since they lie on each other: 1, 2." in page

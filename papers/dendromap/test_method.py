"""The treemap's areas and the file that holds the explorer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from papers.dendromap.method import ORDERS, Order, treemap
from papers.dendromap.treemap import Images, main, write_dendromap
from papers.dendromap.ward import ward
from vision.config.cli import run_main
from vision.config.errors import UserError

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(300, 5)) + 6 * RNG.integers(0, 4, (300, 1))
TREE = ward(POINTS)


@pytest.mark.parametrize("by", ORDERS)
@pytest.mark.parametrize("k", [1, 13, 300])
def test_areas_are_counts(by: Order, k: int) -> None:
    root = int(TREE.children[-1, 1])
    for top in (None, root):
        total = TREE.count[TREE.root if top is None else top]
        boxes = treemap(TREE, TREE.cut(k, top, by), top)
        areas = np.asarray([w * h for _, _, w, h in boxes.values()])
        counts = TREE.count[list(boxes)]
        assert counts.sum() == total
        np.testing.assert_allclose(areas, counts / total, rtol=1e-9)
        for x, y, w, h in boxes.values():
            assert min(x, y, w, h) >= 0
            assert max(x + w, y + h) <= 1 + 1e-9


def test_cells_do_not_overlap() -> None:
    boxes = np.asarray(list(treemap(TREE, TREE.cut(40)).values()))
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    inside = ((middle[:, None] > low) & (middle[:, None] < high)).all(-1)
    np.testing.assert_array_equal(inside, np.eye(40, dtype=bool))


def test_the_program_writes_a_page_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "f.npy", POINTS)
    np.save(tmp_path / "y.npy", np.zeros(300, np.int64))
    np.save(tmp_path / "i.npy", RNG.integers(0, 255, (300, 8, 8), np.uint8))
    evil = "</script><img src=x>"
    (tmp_path / "k.txt").write_text("\n".join([evil, *(f"r{i}" for i in range(1, 300))]))
    flags = {"features": "f.npy", "labels": "y.npy", "predictions": "y.npy", "images": "i.npy"}
    flags |= {"keys": "k.txt", "out": "map.html"}
    assert run_main(main, [f"--{flag}={tmp_path / name}" for flag, name in flags.items()]) == 0
    text = (tmp_path / "map.html").read_text()
    assert evil not in text
    assert all(f'"r{i}"' in text for i in range(1, 300))
    assert not re.search(r"https?://", text)
    flags["labels"] = "k.txt"
    assert run_main(main, [f"--{flag}={tmp_path / name}" for flag, name in flags.items()]) == 2
    assert "k.txt is no .npy file" in capsys.readouterr().err


def test_lengths_have_to_agree(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="labels has 3 entries for 300 features"):
        write_dendromap(Images(POINTS, labels=np.zeros(3, np.int64)), tmp_path / "x.html")

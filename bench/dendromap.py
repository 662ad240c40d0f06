"""The explorer of images with 100,000 of them: building it, its size, and how long a click takes.

``python -m bench.dendromap`` writes ``bench/results/dendromap.csv``. Needs chromium and
chromedriver. Features are a mixture of 200 Gaussians in 64 dimensions, the pictures noise.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import record
from papers.dendromap.treemap import Images, write_dendromap

# The driver of the tests, which are no package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "report"))
browser_in: Any = importlib.import_module("browser").browser_in

SIZES = (1_000, 10_000, 100_000)
ZOOMS = 12

# From the event to the frame in which its result is laid out and painted.
TIMED = """
return new Promise((answer) => {
  const target = document.querySelector(arguments[0]);
  const before = performance.now();
  target.dispatchEvent(new Event(arguments[1], { bubbles: true }));
  document.body.offsetHeight;
  requestAnimationFrame(() => setTimeout(() => answer(performance.now() - before)));
});
"""


def main() -> None:
    rows = []
    for n in SIZES:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 200, n)
        features = rng.normal(size=(n, 64)).astype(np.float32)
        features += 3 * rng.normal(size=(200, 64)).astype(np.float32)[labels]
        said = np.where(rng.random(n) < 0.1, (labels + 1) % 200, labels)
        pictures = rng.integers(0, 255, (256, 32, 32, 3), np.uint8)
        images = Images(features, None, labels, said, picture=lambda i, p=pictures: p[i % 256])
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            out = write_dendromap(images, Path(folder) / "map.html")
            built, size = time.perf_counter() - started, out.stat().st_size
            with browser_in(Path(folder)) as browser:
                started = time.perf_counter()
                browser.open(out)
                opened = time.perf_counter() - started
                into = "#treemap .cell"
                back = "#path button"
                clicks = []
                for i in range(ZOOMS):
                    clicks.append(browser.run(TIMED, back if i % 3 == 2 else into, "click"))
                browser.run(TIMED, back, "click")
                browser.run("document.getElementById('find').value = '99'")
                search = browser.run(TIMED, "#find", "input")
                browser.run("document.getElementById('cells').value = 120")
                dense = browser.run(TIMED, "#cells", "input")
        rows.append(
            {
                "images": n,
                "build_s": f"{built:.2f}",
                "file_mb": f"{size / 1e6:.2f}",
                "open_s": f"{opened:.2f}",
                "zoom_ms_median": f"{statistics.median(clicks):.1f}",
                "zoom_ms_largest": f"{max(clicks):.1f}",
                "search_ms": f"{search:.1f}",
                "cells_120_ms": f"{dense:.1f}",
            }
        )
    record("dendromap", rows)


if __name__ == "__main__":
    main()

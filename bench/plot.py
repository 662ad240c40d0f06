"""Draws docs/benchmarks.png and writes docs/benchmarks.md from bench/results.

    python -m bench.plot          # says whether docs/benchmarks.md is what the results say
    python -m bench.plot --write  # writes it, and the picture where chromium is installed

The page takes what each script shows from its docstring and the figures from its CSV, so that
neither can be out of date without ``bench.plot`` failing.
"""

from __future__ import annotations

import argparse
import ast
import csv
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.common import RESULTS

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.png"
WHERE = ("date", "python", "jax", "flax", "optax", "numpy", "device", "devices", "processor")
LONG = 16  # rows; of longer tables the first are shown
LOW, HIGH = 0.25, 16.0  # ends of the ratio axis, which is logarithmic
LABEL, WIDTH, ROW = 560, 460, 24  # px
Rows = list[dict[str, str]]


def read() -> dict[str, Rows]:
    """Every result by the name of its script."""
    tables = {}
    for path in sorted(RESULTS.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            tables[path.stem] = list(csv.DictReader(file))
    return tables


def bars(tables: dict[str, Rows]) -> list[tuple[str, list[tuple[str, float, float, float]]]]:
    """Headings, and under each: what against what, median ratio, smallest, largest."""

    def group(name: str, label: str, keys: tuple[str, str, str], invert: bool = False) -> Any:
        found = []
        for row in tables.get(name, ()):
            if all(row.get(key) for key in keys):
                values = [float(row[key]) for key in keys]
                if invert:
                    middle, low, high = (1 / value for value in values)
                    values = [middle, high, low]
                text = label.format(**row).replace("JPEG 500x375 to crop 224 and flip, ", "JPEG, ")
                found.append((text, *values))
        return found

    ratios = ("speed_ratio", "ratio_min", "ratio_max")
    wanted = [
        (
            "Train step against torch and timm (lax: ours with plain convolutions)",
            group("compare", "{model}, {cores}-core {clock} time: {against}", ratios),
        ),
        (
            "Train step against a hand-written jit loop",
            group("step", "{model}", ("ratio", "ratio_min", "ratio_max"), invert=True),
        ),
        (
            "A whole run against its bare step",
            group("end_to_end", "{case}", ("kept", "ratio_min", "ratio_max")),
        ),
        ("Input pipeline", group("input", "{case}: {against}", ratios)),
    ]
    return [(heading, rows) for heading, rows in wanted if rows]


def svg(tables: dict[str, Rows]) -> str:
    """The picture: a bar from 1 to the median, a whisker from smallest to largest."""

    def x(value: float) -> float:
        share = math.log(min(max(value, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
        return LABEL + share * WIDTH

    groups = bars(tables)
    height = 70 + sum(ROW * (len(rows) + 2) for _, rows in groups)
    total = LABEL + WIDTH + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{total}" height="{height}" fill="white"/>',
    ]
    tick = LOW
    while tick <= HIGH:
        weight = ' stroke="#333" stroke-width="1.5"' if tick == 1 else ' stroke="#ddd"'
        parts.append(f'<path d="M{x(tick):.1f} 34V{height - 30}"{weight}/>')
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - 12}" text-anchor="middle">{tick:g}x</text>'
        )
        tick *= 2
    parts.append(
        f'<text x="{x(1) + 8:.1f}" y="22" fill="#333">ours faster &#8594;</text>'
        f'<text x="{x(1) - 8:.1f}" y="22" fill="#333" text-anchor="end">&#8592; slower</text>'
    )
    y = 36
    for heading, rows in groups:
        y += ROW
        parts.append(f'<text x="10" y="{y + 4}" font-weight="bold">{escape(heading)}</text>')
        for label, middle, low, high in rows:
            y += ROW
            short = label if len(label) <= 80 else label[:78] + "..."
            left, right = sorted((x(1), x(middle)))
            colour = "#2a7f62" if middle >= 1 else "#c2703d"
            parts.append(
                f'<text x="{LABEL - 10}" y="{y + 4}" text-anchor="end">{escape(short)}</text>'
                f'<rect x="{left:.1f}" y="{y - 7}" width="{max(right - left, 1):.1f}" height="14" '
                f'fill="{colour}"/>'
                f'<path d="M{x(low):.1f} {y}H{x(high):.1f}M{x(low):.1f} {y - 4}v8'
                f'M{x(high):.1f} {y - 4}v8" stroke="black" fill="none"/>'
                f'<text x="{LABEL + WIDTH + 14}" y="{y + 4}">{middle:.2f}x</text>'
            )
        y += ROW
    return "\n".join([*parts, "</svg>"])


def draw(tables: dict[str, Rows], chromium: str) -> None:
    """Renders the picture with a browser."""
    text = svg(tables)
    width, height = (text.split(f'{side}="', 1)[1].split('"', 1)[0] for side in ("width", "height"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "benchmarks.html"
        source.write_text(f'<body style="margin:0">{text}</body>', encoding="utf-8")
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={width},{height}",
            f"--screenshot={PICTURE}",
            source.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def page(tables: dict[str, Rows]) -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks\n",
        "Written by `python -m bench.plot --write` from the scripts in [bench/](../bench) and "
        "their results in [bench/results/](../bench/results). On a shared machine trust ratios, "
        "which come from alternating runs, not absolute times.\n",
        "![Our speed as a ratio to each peer, with smallest and largest](benchmarks.png)\n",
    ]
    for script in sorted((ROOT / "bench").glob("*.py")):
        tree = ast.parse(script.read_text(encoding="utf-8"))
        name, text = script.stem, ast.get_docstring(tree)
        if name in ("__init__", "common", "plot") or name not in tables or not text:
            continue
        parts += [f"## bench.{name}\n", f"```text\n{text}\n```\n", _table(name, tables[name])]
    return "\n".join(parts)


def _table(name: str, rows: Rows) -> str:
    if not rows:
        return "No results.\n"
    columns = [key for key in rows[0] if key not in WHERE]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += [
        "| " + " | ".join(row[key].replace("|", "\\|") for key in columns) + " |"
        for row in rows[:LONG]
    ]
    if len(rows) > LONG:
        lines.append(f"\n{len(rows) - LONG} more rows in bench/results/{name}.csv.")
    where = ", ".join(f"{key} {rows[-1][key]}" for key in WHERE if rows[-1].get(key))
    return "\n".join([*lines, f"\n{where}\n"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true")
    tables = read()
    text = page(tables)
    if not parser.parse_args().write:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE} is {'up to date' if same else 'out of date: run with --write'}")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"written to {PAGE}")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no chromium: the picture is left as it is")
    else:
        draw(tables, chromium)
        print(f"written to {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

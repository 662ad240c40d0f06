"""Every paper with its file, config, claim and what was measured.

    python -m vision.report.methods [--out=methods.html]

Writes docs/methods.md from claims/results, and the same as a page whose table sorts by a click.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vision.config.cli import parse, run_main
from vision.config.errors import UserError
from vision.report.files import write_page
from vision.report.page import disclosure, exact, join, note, page, table, tag

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = Path("docs") / "methods.md"
HEAD = """# Methods

A paper per row: what its method is said to do, beside a baseline on equal terms, on data that ships
with the repository. Numbers are means over seeds, ± their sample standard deviation; seconds are
processor time of the claim, all seeds and baselines together. `make claims` runs all claims and
writes this page (`python -m vision.report.methods`).

A claim that did not hold stays in the table: it says what was seen on this small data, which is
not what the paper saw on its own. The claim's file says more. Papers that are a protocol have no
file of their own: the claim uses an evaluator.

| Paper | Files | Claim | Outcome | Measured | Seeds | Seconds | Parity |
|---|---|---|---|---|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A claim's result and where things lie; paths from the root, None where there is none.

    Attributes:
      slug: the paper's short name.
      result: as ``claims/results/<slug>.json`` has it.
      claim, method, config: files.
    """

    slug: str
    result: Mapping[str, Any]
    claim: Path
    method: Path | None
    config: Path | None

    @property
    def outcome(self) -> str:
        return "held" if self.result["holds"] else "not held"

    @property
    def measured(self) -> list[str]:
        """A line per measurement: ``what: method 0.9 ± 0.1 against baseline 0.8 ± 0.1``."""
        return [_measurement(each) for each in self.result["measured"]]

    @property
    def parity(self) -> str:
        peer = self.result.get("parity")
        if not peer:
            return "-"
        return f"{peer['peer']} {peer['version']}: {peer['max_error']:.2g}"


def collect(root: Path = ROOT) -> list[Entry]:
    """Every claim that has a result, by the file's path.

    Raises:
      UserError: a result that cannot be read.
    """
    found = []
    for claim in sorted((root / "claims").glob("*/test_*.py")):
        slug = claim.stem.removeprefix("test_")
        path = root / "claims" / "results" / f"{slug}.json"
        if not path.exists():
            continue
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            entry = Entry(
                slug,
                result,
                claim.relative_to(root),
                _there(root, Path("vision") / "methods" / claim.parent.name / f"{slug}.py"),
                _there(root, Path("configs") / claim.parent.name / f"{slug}.py"),
            )
            _ = entry.measured, entry.parity, entry.outcome, result["paper"], result["seconds"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no result of a claim: {error}; record it again") from error
        found.append(entry)
    return found


def document(entries: Sequence[Entry]) -> str:
    """docs/methods.md."""
    rows = []
    for each in entries:
        files = [
            f"[{name}](../{path.as_posix()})"
            for name, path in (("method", each.method), ("config", each.config))
            if path is not None
        ]
        cells = (
            _cell(each.result["paper"]),
            " ".join(files) or "-",
            f"[{_cell(each.result['claim'])}](../{each.claim.as_posix()})",
            each.outcome,
            "<br>".join(map(_cell, each.measured)),
            str(len(each.result["seeds"])) if each.result["seeds"] else "-",
            f"{each.result['seconds']:.0f}",
            _cell(each.parity),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(rows) + "\n"


def render(entries: Sequence[Entry]) -> str:
    """The page."""
    rows = [
        [
            _paper(each),
            each.outcome,
            _lines(each.measured),
            exact(str(len(each.result["seeds"])), len(each.result["seeds"])),
            exact(f"{each.result['seconds']:.0f}", each.result["seconds"]),
            each.parity,
        ]
        for each in entries
    ]
    heads = ["paper", "outcome", "measured", "seeds", "seconds", "parity"]
    held = sum(bool(each.result["holds"]) for each in entries)
    said = note(
        "Means over seeds, ± their sample standard deviation, on data that ships with the "
        "repository; seconds of processor time."
    )
    body: Markup = join([said, table(heads, rows, numeric=(3, 4))])
    return page("Methods", f"{len(entries)} claims, {held} held", [("methods", "", body)])


def _paper(each: Entry) -> Markup:
    """Its title, what is claimed, and the name that its files share."""
    kinds = (("method", each.method), ("config", each.config), ("claim", each.claim))
    there = ", ".join(kind for kind, path in kinds if path is not None)
    name = tag("code", f"{each.claim.parent.name}/{each.slug}")
    return join(
        [
            tag("strong", each.result["paper"]),
            note(each.result["claim"]),
            note(join([name, f": {there}"])),
        ]
    )


def _lines(measured: Sequence[str]) -> Markup:
    """The first measurement, and the others folded away where there are several."""
    first, *others = measured
    shown = [tag("div", first)]
    if others:
        shown.append(disclosure(f"{len(others)} more", *(tag("div", line) for line in others)))
    return join(shown)


def _measurement(each: Mapping[str, Any]) -> str:
    text = f"{each['what']}: {_side(each['method'])}"
    return f"{text} against {_side(each['baseline'])}" if each["baseline"] else text


def _side(side: Mapping[str, Any]) -> str:
    spread = f" ± {side['spread']:.2g}" if len(side["values"]) > 1 else ""
    return f"{side['name']} {side['mean']:.3g}{spread}"


def _there(root: Path, path: Path) -> Path | None:
    return path if (root / path).exists() else None


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str]) -> int:
    options = parse(arguments, __doc__ or "", out="HTML file to write as well; none by default")
    entries = collect()
    (ROOT / DOCUMENT).write_text(document(entries), encoding="utf-8")
    print(f"written to {ROOT / DOCUMENT}")
    if isinstance(options.out, str):
        print(f"written to {write_page(Path(options.out), render(entries))}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

"""All claims in one table.

    python -m claims.table

Writes docs/claims.md from claims/results.
"""

from __future__ import annotations

from collections.abc import Iterable

from claims.ledger import ROOT, Result, claim_files, read, result_file

TABLE = ROOT / "docs" / "claims.md"
HEAD = """# Claims

One for every paper: what its method is said to do, beside a baseline on equal terms, on data that
ships with the repository. Numbers are means over seeds, ± their sample standard deviation; seconds
are processor time. `make claims` runs them all and writes this page; the files are in
[claims/](../claims).

A claim that did not hold stays in the table: it says what was seen on this small data, which is
not what the paper saw on its own.

| Paper | Claim | Outcome | Measured | Seeds | Seconds |
|---|---|---|---|---|---|
"""


def render(results: Iterable[tuple[str, Result]]) -> str:
    """The page, from the file of every claim, relative to the root, and its result."""
    rows = []
    for path, result in results:
        measured = [str(each) for each in result.measured]
        if result.parity is not None:
            peer = result.parity
            measured.append(f"{peer.peer} {peer.version}: largest error {peer.max_error:.2g}")
        cells = (
            result.paper,
            f"[{_cell(result.claim)}](../{path})",
            "held" if result.holds else "NOT HELD",
            "<br>".join(map(_cell, measured)),
            str(len(result.seeds)) if result.seeds else "-",
            f"{result.seconds:.0f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(rows) + "\n"


def current() -> str:
    """The page of the results that are there."""
    found = [(path, result_file(path)) for path in claim_files()]
    return render(
        (path.relative_to(ROOT).as_posix(), read(result))
        for path, result in found
        if result.exists()
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    TABLE.write_text(current())
    print(f"written to {TABLE}")

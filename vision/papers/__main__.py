"""The command line of papers: ``python -m vision.papers COMMAND ...``.

    list [WORDS] [--tag=TAG] [--outcome=OUTCOME]   a table; words are searched in titles and claims
    show PAPER                      what is known of a paper, and whether its result is fresh
    new PAPER [--title=..] [--year=..]  a folder with a method, its config, tests and a claim
    claim PAPER ... [--record]      runs claims; --record writes what came out to result.json
    claim --all [--record]          every claim
    claim --sample [--budget_s=90]  some claims, other ones for every commit
    gallery [--out=papers.html]     writes docs/papers.md, and a page with a card per paper

PAPER is a slug, such as smmix, or the path of a folder of the same shape anywhere on the disk.
Exit status: 0, 1 when a claim came out differently or failed, 2 for wrong arguments.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from vision.config.cli import UsageError, parse, run_main
from vision.papers import discover, ledger, scaffold
from vision.papers.run_claims import BUDGET_S, claimed, run, sampled
from vision.report.numbers import format_table

TITLE_WIDTH = 60


def main(arguments: list[str]) -> int:
    """Runs one command; returns its exit status."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "list": list_,
        "show": show,
        "new": new,
        "claim": claim,
        "gallery": gallery,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(commands)} (see --help)"
        raise UsageError(f"there is no command {name!r}: {hint}")
    return commands[name](rest)


def list_(arguments: list[str]) -> int:
    """Prints a table of the papers that fit."""
    words, flags = _read(
        arguments,
        tag="only papers with this tag",
        outcome=f"only those whose claim came out so: {', '.join(discover.OUTCOMES)}",
    )
    tag, outcome = _text(flags.tag, "tag"), _text(flags.outcome, "outcome")
    entries = discover.all_papers(discover.home())
    _one_of("tag", tag, sorted({tag for entry in entries for tag in entry.paper.tags}))
    _one_of("outcome", outcome, discover.OUTCOMES)
    found = discover.matching(entries, words, tag, outcome)
    rows = [
        {
            "slug": entry.slug,
            "card": str(entry.paper.card or ""),
            "year": str(entry.paper.year),
            "title": _cut(entry.paper.title),
            "tags": " ".join(entry.paper.tags),
            "outcome": entry.outcome,
        }
        for entry in found
    ]
    if rows:
        print(format_table(rows))
    print(f"{len(found)} of {len(entries)} papers")
    return 0


def show(arguments: list[str]) -> int:
    """Prints all that is known of one paper."""
    words, _ = _read(arguments)
    root = discover.home()
    entry = discover.read_folder(discover.locate(_single(words, "show"), root))
    paper, result = entry.paper, entry.result
    lines = [
        f"{paper.title}, {paper.year}",
        *([f"card {paper.card}"] if paper.card else []),
        f"tags: {', '.join(paper.tags)}",
        f"the authors report: {paper.headline}",
        "",
        *(f"{word}: {_from_here(path)}" for word, path in entry.files.items()),
        *(f"no {part}: {reason}" for part, reason in paper.without.items()),
    ]
    if result is not None:
        lines += ["", f"claim: {result.claim}", f"outcome: {result.outcome}"]
        lines += [f"  {each}" for each in (*result.reasons, *result.all_measured)]
        lines += [f"  the margin is {result.margin.rule}"]
        seeds = f"{len(result.seeds)} seeds, " if result.seeds else ""
        lines += [f"{seeds}{result.seconds:.0f} s of processor time"]
        lines += [f"parity with {result.parity}"] if result.parity else []
    wrong = ledger.fault(entry.folder, root)
    print("\n".join([*lines, *(["", wrong] if wrong else [])]))
    return 0


def new(arguments: list[str]) -> int:
    """Writes the folder of a new paper."""
    words, flags = _read(arguments, title="of the paper", year="of the publication")
    root = discover.home()
    folder = scaffold.place(_single(words, "new"), root)
    year = _text(flags.year, "year")
    if year and not year.isdigit():
        raise UsageError(f"--year={year} is no whole number")
    title = _text(flags.title, "title")
    for path in scaffold.write(folder, root, title, int(year) if year else None):
        print(_from_here(path))
    print(scaffold.next_steps(folder, root))
    return 0


def claim(arguments: list[str]) -> int:
    """Runs claims."""
    words, flags = _read(
        arguments,
        record="write what came out to result.json",
        all="every claim of the repository",
        sample="some claims, other ones for every commit",
        budget_s=f"processor seconds of the sample; {BUDGET_S:g} by default",
    )
    for name in ("record", "all", "sample"):
        if isinstance(getattr(flags, name), str):
            raise UsageError(f"--{name} takes no value")
    if sum((bool(words), flags.all, flags.sample)) != 1:
        raise UsageError("claim needs slugs or folders of papers, or --all, or --sample")
    budget = _text(flags.budget_s, "budget_s")
    if budget and (not flags.sample or not budget.replace(".", "", 1).isdigit()):
        raise UsageError(f"--budget_s={budget}: seconds, beside --sample")
    root = discover.home()
    if words:
        folders = [discover.locate(word, root) for word in words]
    else:
        entries = discover.all_papers(root)
        folders = claimed(entries)
        if flags.sample:
            folders = sampled(entries, root, float(budget or BUDGET_S))
    return run(folders, root, record=bool(flags.record))


def gallery(arguments: list[str]) -> int:
    """Writes docs/papers.md and the page."""
    from vision.papers import document, gallery
    from vision.report.files import write_page

    words, flags = _read(arguments, out="HTML file to write as well; none by default")
    if words:
        raise UsageError(f"gallery takes no {words[0]!r}")
    root = discover.home()
    entries = discover.all_papers(root)
    out, text = _text(flags.out, "out"), root / document.DOCUMENT
    text.parent.mkdir(exist_ok=True)
    text.write_text(document.render(entries, text.parent), encoding="utf-8")
    print(f"written to {_from_here(text)}")
    if out:
        print(f"written to {write_page(Path(out), gallery.render(entries, Path(out).parent))}")
    return 0


def _read(arguments: list[str], **flags: str) -> tuple[list[str], SimpleNamespace]:
    """Words, and flags beside them."""
    words = [each for each in arguments if not each.startswith("-")]
    given = [each for each in arguments if each.startswith("-")]
    return words, parse(given, __doc__ or "", (), **flags)


def _text(value: str | bool, flag: str) -> str:
    if value is True or value == "":
        raise UsageError(f"--{flag} needs a value: --{flag}=...")
    return value or ""


def _single(words: list[str], command: str) -> str:
    if len(words) != 1:
        raise UsageError(f"{command} needs one slug or folder of a paper, not {len(words)}")
    return words[0]


def _one_of(flag: str, value: str, known: list[str] | tuple[str, ...]) -> None:
    if value and value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UsageError(f"--{flag}={value}: {hint}")


def _cut(title: str) -> str:
    return title if len(title) <= TITLE_WIDTH else title[: TITLE_WIDTH - 1].rstrip() + "…"


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

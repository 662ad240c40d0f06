"""The page of a data set: what a config's training and evaluation data look like.

    python -m vision.report.dataset --config=configs/digits_vit.py --out=digits.html
    python -m vision.report.dataset --config=configs/folder_vit.py:/path/to/images --limit=5000

Shows samples after the ops with boxes, masks and captions drawn, class counts, picture sizes,
fields that are missing or constant, records that cannot be read, pictures that occur twice (also
across training and evaluation data), and what the data set's card does not say.

Nothing is trained. Values of the config can be set as for train.py: --config.<key>=<value>.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.config.cli import help_first

LIMIT = 2000
FLAGS = {
    "config": "config file, optionally followed by :mode",
    "out": "HTML file; dataset.html by default",
    "limit": f"most records to read of every part, evenly spread; {LIMIT} by default",
    "card": "JSON file with what else is known: licence, homepage, citation, consent, ...",
}
if __name__ == "__main__":
    help_first(__doc__, FLAGS)

from vision.config.cli import UsageError, parse, run_main
from vision.config.errors import caused_by
from vision.config.files import replace_file
from vision.config.hints import CONSTRUCTOR, is_spec
from vision.config.schema import ConfigError
from vision.config.specs import build, load, to_plain, validate
from vision.report.dataset_page import render
from vision.report.files import ReportError
from vision.report.survey import SourcePart, survey


def parts_of(config: Any) -> tuple[list[SourcePart], dict[str, Any]]:
    """The data of a config: training data, and that of every evaluator that has some.

    Args:
      config: ``spec(Experiment, ...)``, or the spec of one data set with a ``source``.

    Returns:
      The parts with different sources or ops, in order, and their plain configs by name.
    """
    nodes: dict[str, Any] = {}
    if "source" in config:
        nodes["data"] = config
    elif is_spec(config.get("data")):
        nodes["train"] = config.data
        for name, node in (config.get("evaluators") or {}).items():
            if is_spec(node) and is_spec(node.get("data")) and "source" in node.data:
                nodes[name] = node.data
    if not nodes:
        raise ConfigError("this config has no data: neither config.data nor config.source")
    parts: list[SourcePart] = []
    plain: dict[str, Any] = {}
    for name, node in nodes.items():
        plain_node = to_plain(node)
        source_and_ops = {key: plain_node.get(key) for key in ("source", "ops")}
        if any(
            source_and_ops == {key: other.get(key) for key in source_and_ops}
            for other in plain.values()
        ):
            continue
        data = build(node)
        later = [
            str(op[CONSTRUCTOR]).rsplit(".", 1)[-1] for op in plain_node.get("batch_ops") or ()
        ]
        parts.append(SourcePart(name, data.source, data.ops, tuple(later)))
        plain[name] = plain_node
    return parts, plain


def write_dataset_report(
    config: Any,
    out: Path,
    *,
    title: str = "data",
    limit: int = LIMIT,
    card: Mapping[str, Any] | None = None,
    command: str = "",
) -> list[str]:
    """Reads the data of a config and writes their page, one file that needs no other.

    Args:
      config: see ``parts_of``.
      out: the HTML file, replaced in one step.
      title: shown on top.
      limit: most records that are read of every part.
      card: what is known about the data set beyond its source's ``info``.
      command: shown at the end.

    Returns:
      What was found, one sentence each, as on top of the page.

    Raises:
      DataError: a source cannot be opened.
      ReportError: ``out`` cannot be written.
    """
    parts, plain = parts_of(config)
    surveys = [survey(part, limit) for part in parts]
    text, findings = render(surveys, title=title, card=card or {}, config=plain, command=command)
    try:
        with replace_file(out) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        problem = ReportError(f"{out} cannot be written: {error.strerror}")
        raise caused_by(problem, error) from error
    return findings


def read_card(path: str) -> dict[str, Any]:
    """A data set's card: a JSON object with fields such as ``licence`` and ``consent``."""
    try:
        card = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ReportError(f"{path}: no JSON: {error}") from error
    if not isinstance(card, dict):
        raise ReportError(f"{path}: a card is a JSON object, such as {{'licence': 'CC-BY-4.0'}}")
    return card


def main(arguments: Sequence[str]) -> int:
    options = parse(
        list(arguments),
        __doc__ or "",
        required=("config",),
        **FLAGS,
    )
    if options.limit and not (str(options.limit).isdecimal() and int(options.limit) > 0):
        raise UsageError(f"--limit={options.limit}: a whole number of at least 1")
    config = load(options.config, options.overrides)
    validate(config, source=options.config, offered={"objective": frozenset({"model"})})
    out = Path(str(options.out or "dataset.html"))
    findings = write_dataset_report(
        config,
        out,
        title=f"Data of {Path(options.config.partition(':')[0]).stem}",
        limit=int(options.limit or LIMIT),
        card=read_card(options.card) if options.card else None,
        command=" ".join(["python", "-m", "vision.report.dataset", *arguments]),
    )
    print("\n".join(f"- {finding}" for finding in findings) or "nothing found wrong")
    print(f"report: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

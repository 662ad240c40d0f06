"""What evaluate.py's flags say: make a run where there is none, measure, compare, write pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vision.checkpoint.retention import best_by, named_step
from vision.config import specs as config
from vision.config.cli import UsageError, cache_compilations
from vision.parallel import cluster
from vision.programs.compare import compare
from vision.programs.workdir import evaluate_workdir
from vision.report.compare import write_comparison
from vision.report.numbers import format_table, metric
from vision.report.run import write_report
from vision.run import experiment
from vision.run.initial import init_run
from vision.run.workdir import write_text
from vision.scenario.stages import run_folders
from vision.weights.average import average

# With more columns than this a terminal shows one metric per line, and so many of an evaluator.
_WIDE, _LONG = 10, 12


def run(options: SimpleNamespace, command: str) -> bool:
    """Does what the flags of evaluate.py say.

    Returns:
      Whether an evaluator failed.

    Raises:
      UserError: flags that do not go together, and whatever the parts raise.
    """
    if options.compare:
        return _compare(options)
    if not isinstance(options.workdir, str):
        raise UsageError("--workdir=... is required (see --help)")
    workdir = Path(options.workdir)
    allow = _allowed(options)
    out = Path(_text(options, "out") or workdir)
    cache_compilations(workdir / "compilation_cache")
    if options.average and options.config:
        raise UsageError(
            "--average takes runs that exist, --config makes one: leave one of them out"
        )
    if options.average:
        how = (_text(options, "average_mode") or "uniform", _text(options, "average_by") or "")
        report = average(str(options.average).split(","), workdir, *how)
        print(f"{report['mode']} of {', '.join(report['taken'])}")
    if options.config:
        loaded = config.load(str(options.config), options.overrides)
        experiment.check(loaded, str(options.config))
        init_run(loaded, workdir)
    elif inside := run_folders(workdir, allow):
        stages = ", ".join(str(folder) for folder in inside)
        raise UsageError(f"{workdir} holds several runs; take one as --workdir: {stages}")
    names, features = _text(options, "evaluators"), _text(options, "features")
    results = evaluate_workdir(
        workdir,
        out,
        names=names.split(",") if names else None,
        step=_step(options, workdir),
        command=command,
        features=Path(features) if features else None,
        suite=_text(options, "suite"),
        overrides=None if options.config else options.overrides,
        allow=allow,
        send=not options.no_loggers,
    )
    results_by_name: Mapping[str, Mapping[str, Any]] = results["evaluators"]
    if cluster.is_main():
        print(summary(results_by_name))
        print(f"report: {write_report(workdir, out / 'report.html')}")
    return any("error" in result for result in results_by_name.values())


def _allowed(options: SimpleNamespace) -> tuple[str, ...]:
    """Packages that ``--allow_modules`` names."""
    text = _text(options, "allow_modules")
    return tuple(text.split(",")) if text else ()


def _step(options: SimpleNamespace, workdir: Path) -> int | None:
    """The checkpoint that ``--step`` means; None for the newest valid one."""
    text = _text(options, "step")
    step = named_step(workdir, text)
    if text and text.startswith("best"):
        metric, mode = best_by(workdir, text)
        print(f"step {step} is best by {metric} ({mode}) of the checkpoints kept")
    return step


def summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Results as text: a line per evaluator, or per metric where there are many; then failures."""
    good = {name: result["metrics"] for name, result in results.items() if "error" not in result}
    columns = {key for metrics in good.values() for key in metrics}
    if len(columns) <= _WIDE:
        rows = [{"evaluator": name, **metrics} for name, metrics in good.items()]
    else:
        rows = [
            {"evaluator": name, "metric": key, "value": value}
            for name, metrics in good.items()
            for key, value in _first(metrics)
        ]
    parts = [format_table(rows)] if rows else []
    failed = {name: result["error"] for name, result in results.items() if "error" in result}
    if failed:
        parts.append(f"{len(failed)} of {len(results)} evaluators failed:")
        parts.append(format_table([{"evaluator": k, "error": text} for k, text in failed.items()]))
    return "\n".join(parts)


def _first(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = [(key, metric(key, value)) for key, value in list(metrics.items())[:_LONG]]
    more = len(metrics) - len(shown)
    return [*shown, ("...", f"{more} more on the page")] if more else shown


def _compare(options: SimpleNamespace) -> bool:
    others = ("workdir", "config", "suite", "average", "average_mode", "average_by", "step")
    for other in (*others, "no_loggers"):
        if getattr(options, other):
            raise UsageError(f"--compare and --{other} do not go together")
    if options.overrides:
        raise UsageError("--compare and --config.evaluators... do not go together")
    if not isinstance(options.out, str):
        raise UsageError("--compare needs --out=FOLDER for compare.json and compare.html")
    out, features = Path(options.out), _text(options, "features")
    cache_compilations(out / "compilation_cache")
    comparison = compare(
        [Path(folder) for folder in str(options.compare).split(",")],
        evaluator=_text(options, "evaluators"),
        features=Path(features) if features else None,
        allow=_allowed(options),
    )
    if cluster.is_main():
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "compare.json", json.dumps(comparison, allow_nan=False) + "\n")
        rows = [
            {
                "run": run_summary["name"],
                **next(iter(run_summary["metrics"].values())),
                **run_summary["cost"],
            }
            for run_summary in comparison["runs"]
        ]
        print(format_table(rows))
        print(format_table([_pair(pair) for pair in comparison["pairs"]]))
        print(f"report: {write_comparison(comparison, out / 'compare.html')}")
    return False


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    low, high = pair["interval"]
    shown = {"a": pair["a"], "b": pair["b"], "metric": pair["metric"], "b - a": pair["difference"]}
    shown |= {"from": low, "to": high}
    if pair["metric"] == "top1":
        shown |= {"McNemar p": pair["mcnemar_p"]}
        shown |= {"only a right": pair["only_a_right"], "only b right": pair["only_b_right"]}
    return shown | {"rank correlation": pair["rank_correlation"]}


def _text(options: SimpleNamespace, name: str) -> str | None:
    value = getattr(options, name)
    if value is True:
        raise UsageError(f"--{name} needs a value: --{name}=... (see --help)")
    return value or None

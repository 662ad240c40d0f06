"""Evaluates a checkpoint of a run and writes evaluation.json and report.html.

    python evaluate.py --workdir=workdirs/digits
    python evaluate.py --workdir=workdirs/digits --step=1000 --evaluators=test --out=/tmp/at_1000

Reads nothing but the workdir and the evaluators' data; it may run beside a training.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vision.core.cli import cache_compilations, parse, run_main, whole_number


def main(arguments: list[str]) -> int:
    options = parse(
        arguments,
        __doc__ or "",
        workdir="folder of the run",
        evaluators="names to run, separated by commas; all by default",
        step="of the checkpoint to evaluate; the newest valid one by default",
        out="folder for evaluation.json and report.html; the workdir by default",
        distributed="join the processes that the cluster started (SLURM, GKE, TPU, Open MPI)",
    )
    workdir = Path(options.workdir)
    out = Path(options.out) if options.out else workdir
    from vision.core import cluster

    cluster.join(detect=bool(options.distributed))
    cache_compilations(workdir / "compilation_cache")
    from vision.evaluators.workdir import evaluate_workdir
    from vision.report.run import format_table, write_report

    names = options.evaluators.split(",") if options.evaluators else None
    step = whole_number("step", options.step) if options.step else None
    command = " ".join(["python", "evaluate.py", *arguments])
    results = evaluate_workdir(workdir, out, names=names, step=step, command=command)
    rows = [
        {"evaluator": name, **result["metrics"]} for name, result in results["evaluators"].items()
    ]
    if cluster.is_main():
        print(format_table(rows))
        print(f"report: {write_report(workdir, out / 'report.html')}")
    cluster.leave()
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

"""Evaluates a checkpoint of a run and writes evaluation.json and report.html.

    python evaluate.py --workdir=workdirs/digits
    python evaluate.py --workdir=workdirs/digits --step=1000 --evaluators=test --out=/tmp/at_1000
    python evaluate.py --average=workdirs/a,workdirs/b --average_mode=greedy --workdir=workdirs/soup

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
        workdir="folder of the run; with --average a new one, for the average",
        evaluators="names to run, separated by commas; all by default",
        step="of the checkpoint to evaluate; the newest valid one by default",
        out="folder for the results; the workdir by default",
        features="folder that keeps outputs of the model for the next evaluation; none by default",
        average="runs to average, separated by commas (docs/finetuning.md)",
        average_mode="uniform (the default), greedy, or wise:0.5",
        average_by="what greedy looks at: evaluator/metric, such as val/top1",
        distributed="join the processes that the cluster started (SLURM, GKE, TPU, Open MPI)",
    )
    from vision.core import cluster

    workdir, out = Path(options.workdir), Path(options.out or options.workdir)
    cluster.join(detect=bool(options.distributed))
    cache_compilations(workdir / "compilation_cache")
    from vision.evaluators.workdir import evaluate_workdir
    from vision.report.run import format_table, write_report

    if options.average:
        from vision.weights.average import average

        how = (options.average_mode or "uniform", options.average_by or "")
        report = average(options.average.split(","), workdir, *how)
        print(f"{report['mode']} of {', '.join(report['taken'])}")
    names = options.evaluators.split(",") if options.evaluators else None
    step = whole_number("step", options.step) if options.step else None
    command = " ".join(["python", "evaluate.py", *arguments])
    kept = Path(options.features) if options.features else None
    results = evaluate_workdir(workdir, out, names=names, step=step, command=command, features=kept)
    if cluster.is_main():
        found = results["evaluators"].items()
        print(format_table([{"evaluator": name, **result["metrics"]} for name, result in found]))
        print(f"report: {write_report(workdir, out / 'report.html')}")
    cluster.leave()
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))

"""Trains a config many times: over a grid of values, or by a search that learns from its trials.

    python -m vision.sweep --config=digits_vit --workdir=workdirs/lr \\
        --grid optimizer.learning_rate=1e-3,3e-3 --grid seed=0,1,2
    python -m vision.sweep --config=digits_vit --workdir=workdirs/search --trials=20 \\
        --search optimizer.learning_rate=1e-4..1e-2,log --search model.depth=2..6 \\
        --pruner=median --config.evaluate_every="5 epochs"
    sbatch --array=0-7 launch/slurm_sweep.sh --config=... --workdir=/shared/... --grid ...

A grid has every combination. Every trial is an ordinary workdir, workdirs/lr/0003; sweep.html in
the sweep's folder has them all. The same command again goes on: trials that ended are kept, the one
that was broken off continues from its checkpoint, and failed ones of a grid are tried again.
Several such commands, also on machines with a common disk, share the trials. docs/sweep.md.

Exit status: 0, 1 when a trial failed (the others ran), 2 for wrong arguments or a key that the
config does not have (nothing was trained), 143 and 130 when stopped by SIGTERM and SIGINT.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vision.config.cli import UsageError, parse, run_main, whole_number

REPEATED = ("grid", "search")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    varied, rest = _taken(arguments)
    options = parse(
        rest,
        __doc__ or "",
        required=("config", "workdir"),
        config="config file or its short name, optionally followed by :function,name=value",
        workdir="folder of the sweep, with a workdir for every trial",
        grid="KEY=VALUE,VALUE,... of the config; may be repeated",
        search="KEY=LOW..HIGH, KEY=LOW..HIGH,log or KEY=VALUE,VALUE,...; may be repeated",
        metric="evaluator/metric that ranks trials; checkpoints.best of the config, else top1 of "
        "its first Classification",
        mode="max or min of it is best; by its name by default",
        trials="number of trials of a search; more may be asked for later",
        sampler="of a search: tpe (the default), random, qmc, cmaes, gp",
        pruner="of a search, at evaluations while training: none (the default), median, halving, "
        "hyperband",
        seed="of the sampler; 0 by default",
        jobs="trainings at a time on this machine; 1 by default",
    )
    return _sweep(options, varied)


def _taken(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """``--grid KEY=...`` and ``--grid=KEY=...``, as often as they come, and the rest."""
    varied, rest = [], []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.removeprefix("--").partition("=")
        if name not in REPEATED or not argument.startswith("--"):
            rest.append(argument)
            continue
        value = value if equals else next(waiting, "")
        if not value or value.startswith("--"):
            raise UsageError(f"--{name} needs a value: --{name} KEY=VALUE,VALUE (see --help)")
        varied.append((name, value))
    return varied, rest


def _sweep(options, varied: list[tuple[str, str]]) -> int:
    from vision.config import specs
    from vision.sweep import search, space
    from vision.sweep.run import Stops, Sweep, Worker, check_first, open_sweep
    from vision.sweep.trials import all_trials

    kinds = {name for name, _ in varied}
    if len(kinds) != 1:
        raise UsageError("one of --grid KEY=VALUE,... and --search KEY=LOW..HIGH is required")
    searching = kinds == {"search"}
    read = space.axis if searching else space.choice
    axes = tuple(read(name, text) for name, text in varied)
    sampler, pruner = options.sampler or "tpe", options.pruner or "none"
    count = whole_number("trials", options.trials) if options.trials else None
    if searching:
        search.check(sampler, pruner)
        if not count:
            raise UsageError("--search needs the number of trials: --trials=20")
    elif options.trials or options.sampler or options.pruner:
        raise UsageError(
            "--trials, --sampler and --pruner belong to --search: a grid has all points"
        )
    space.check(options.config, options.overrides, axes)
    config = specs.load(options.config, options.overrides)
    metric, mode = space.chosen_metric(config, options.metric or None, options.mode or None)
    if pruner != "none" and not config.evaluate_every:
        raise UsageError(
            f"--pruner={pruner} looks at evaluations while training, and the config has none: "
            '--config.evaluate_every="5 epochs"'
        )
    sweep = Sweep(
        folder=Path(options.workdir),
        reference=options.config,
        overrides=options.overrides,
        axes=axes,
        metric=metric,
        mode=mode,
        count=count,
        sampler=sampler,
        pruner=pruner,
        seed=whole_number("seed", options.seed),
    )
    jobs = whole_number("jobs", options.jobs) if options.jobs else 1
    if jobs < 1:
        raise UsageError("--jobs is at least 1")
    check_first(sweep)
    open_sweep(sweep)
    with Stops() as stops:
        worker = Worker(sweep, lambda text: print(text, flush=True), lambda: stops.count)
        print(f"{worker.count} trials by {metric}, {mode} is best: {sweep.folder}", flush=True)
        stopped = worker.run(jobs)
    page = worker.write_page()
    found = all_trials(sweep.folder)
    print(f"{sum(trial.state == 'complete' for trial in found)} of {worker.count} trials: {page}")
    if stopped:
        return 128 + stops.signal if stops.signal else 143
    return 1 if any(trial.state == "failed" for trial in found) else 0


def console() -> None:
    """The command that an installation puts on the path."""
    sys.exit(run_main(main, sys.argv[1:]))


if __name__ == "__main__":
    console()

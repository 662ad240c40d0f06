"""Trains one experiment; the same command again goes on where the last one stopped.

    python train.py --config=configs/digits_vit.py --workdir=workdirs/digits
    python train.py --config=configs/digits_vit.py --workdir=/tmp/x --config.model.width=96

Any value of a config can be set with --config.<key>=<value>, also inside lists:
--config.data.ops[1].size=192. What stands after a colon calls a function of the config file,
--config=papers/cutmix/config.py:small,rival=cutout; a first word that is none of its functions
is the first argument of get_config. A config of several stages has a folder for each.
--config=FILE --help prints all that can be set in it, with types, defaults and what it is;
python -m vision.catalog finds configs, models, ops and the like.

On several processes (docs/launch.md) every one runs this command: with --distributed under SLURM,
GKE, Open MPI or on TPU VMs; on one machine by python -m vision.programs.launch.

Exit status: 0 finished, 1 failed, not saved or an evaluator failed (the run went on without it),
2 wrong arguments or config, 143 stopped by SIGTERM and 130 by SIGINT (state saved; run the same
command to go on); docs/launch.md has the table.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vision.config.cli import cache_compilations, parse, run_main, whole_number


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    if (config_help := config_asked(arguments)) is not None:
        from vision.config.tree import config_tree

        print(config_tree(config_help))
        return 0
    options = parse(
        arguments,
        __doc__ or "",
        required=("config", "workdir"),
        config="config file, or slug of a paper, optionally followed by :function,name=value",
        workdir="folder of the run: checkpoints, metrics, resolved config",
        accept_config_change="go on in a workdir that was made with another config",
        distributed="join the processes that the cluster started (SLURM, GKE, TPU, Open MPI)",
        profile="write a trace of so many steps into the workdir, for TensorBoard",
    )
    workdir = Path(options.workdir)
    # What follows imports for seconds.
    print(f"training {options.config} in {workdir}", file=sys.stderr, flush=True)
    from vision.config import specs as config
    from vision.parallel import cluster

    cluster.join(detect=bool(options.distributed))
    cache_compilations(workdir / "compilation_cache")
    from vision.run import loop
    from vision.run.clock import process_age_s
    from vision.scenario import stages

    loaded = config.load(options.config, options.overrides)
    stages.check(loaded, options.config)
    train = stages.train if stages.is_scenario(loaded) else loop.train
    outcome = train(
        loaded,
        workdir,
        accept_config_change=bool(options.accept_config_change),
        profile_steps=whole_number("profile", options.profile),
        spent_s=process_age_s(),
    )
    if cluster.is_main() and outcome.saved and not stages.is_scenario(loaded):
        _write_page(workdir)
    cluster.leave()
    if not outcome.saved:
        return 1
    if outcome.signal is not None:
        return 128 + outcome.signal
    return 1 if outcome.failed else 0


def config_asked(arguments: list[str]) -> str | None:
    """The config whose parts are asked for, ``--config=... --help``; None for anything else."""
    given = [x.removeprefix("--config=") for x in arguments if x.startswith("--config=")]
    return given[-1] if given and {"-h", "--help"} & set(arguments) else None


def _write_page(workdir: Path) -> None:
    """Writes the page of the run, of what there is; evaluate.py writes it anew with figures."""
    from vision.report.files import ReportError
    from vision.report.run import write_report

    try:
        print(f"page: {write_report(workdir, workdir / 'report.html')}", file=sys.stderr)
    except ReportError as error:
        print(f"no page: {error}", file=sys.stderr)


def console() -> None:
    """The command that an installation puts on the path."""
    sys.exit(run_main(main, sys.argv[1:]))

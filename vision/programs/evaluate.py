"""Evaluates a checkpoint of a run and writes evaluation.json and report.html.

    python evaluate.py --workdir=workdirs/digits
    python evaluate.py --workdir=workdirs/digits --suite=full
    python evaluate.py --workdir=workdirs/digits --step=1000 --evaluators=test --out=/tmp/at_1000
    python evaluate.py --workdir=workdirs/a --step=best --config.evaluators.test.data.batch_size=8
    python evaluate.py --compare=workdirs/a,workdirs/b,workdirs/c --out=workdirs/compared
    python evaluate.py --average=workdirs/a,workdirs/b --average_mode=greedy --workdir=workdirs/soup
    python evaluate.py --config=configs/finetune_folder.py:images,tower=vit_b16 --suite=full \\
        --config.init_from.source=timm:vit_base_patch16_224.augreg_in21k --workdir=workdirs/new

Reads nothing but the workdir and the evaluators' data; it may run beside a training. The evaluators
of its config can be changed (--config.evaluators.NAME...): other data, another batch size. The last
form evaluates weights that were never trained here (docs/evaluation.md). Exit status: 0, 1 when an
evaluator failed (the others ran; the table says why), 2 for wrong arguments.
"""

from __future__ import annotations

import sys

from vision.config.cli import parse, run_main


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    options = parse(
        arguments,
        __doc__ or "",
        workdir_overrides="evaluators",
        workdir="folder of the run; with --average or --config a new one",
        config="config file: make the workdir from its init_from, without training",
        suite="evaluators beside those of the config: quick or full",
        evaluators="names to run, separated by commas; all by default",
        compare="runs to compare on the same examples, separated by commas",
        step="of the checkpoint to evaluate; best: by config.checkpoints.best; best:test/top1: by "
        "that; the newest valid one by default",
        out="folder for the results; the workdir by default",
        features="folder that keeps outputs of the model for the next evaluation; none by default",
        average="runs to average, separated by commas (docs/finetuning.md)",
        average_mode="uniform (the default), greedy, or wise:0.5",
        average_by="what greedy looks at: evaluator/metric, such as val/top1",
        allow_modules="packages whose constructors the workdir may name, separated by commas",
        no_loggers="send nothing to the loggers of the config",
        distributed="join the processes that the cluster started (SLURM, GKE, TPU, Open MPI)",
    )
    from vision.parallel import cluster
    from vision.programs.evaluation import run

    cluster.join(detect=bool(options.distributed))
    failed = run(options, command=" ".join(["python", "evaluate.py", *arguments]))
    cluster.leave()
    return 1 if failed else 0


def console() -> None:
    """The command that an installation puts on the path."""
    sys.exit(run_main(main, sys.argv[1:]))

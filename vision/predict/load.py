"""``vision.load``: what was trained, ready to be asked about images."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Collection
from pathlib import Path

import jax

from vision.checkpoint.reading import complete, folder_of
from vision.checkpoint.retention import named_step
from vision.parallel.mesh import MeshError
from vision.predict.predictor import Predictor
from vision.predict.preprocessing import of_run
from vision.predict.pretrained import load_weights, weights_source
from vision.predict.results import unique_names
from vision.predict.zero_shot import TextSide, tokenizer_of
from vision.run.restore import Run, load_run
from vision.run.workdir import WorkdirError
from vision.scenario.stages import run_folders

log = logging.getLogger(__name__)
# Of a run that was trained on more devices than there are here: every device has all parameters.
_WHOLE = {"mesh.replica": "1", "mesh.data": "-1", "mesh.fsdp": "1", "mesh.tensor": "1"}


def load(
    workdir: str | os.PathLike[str],
    *,
    step: int | str | None = None,
    preprocessing: str = "",
    allow_modules: Collection[str] = (),
    batch_size: int | None = None,
    threads: int = 4,
    workers: int = 0,
) -> Predictor:
    """Reads a trained run, or weights of another library; nothing else is needed, and nothing is
    written.

    Args:
      workdir: folder of a run; or ``zoo:`` and the name of a member; or ``timm:``,
        ``open_clip:`` or ``transformers:`` and a name on the hub or a folder; or a folder with
        weights and the config of one of these libraries.
      step: of the checkpoint of a run, or ``best`` (by the config's ``checkpoints.best``), or
        ``best:METRIC``; None for the newest valid one.
      preprocessing: an evaluator of the run's config whose ops are taken, or weights whose card
        says it, ``timm:NAME``; empty for the first ``Classification``, else the first evaluator
        that reads images.
      allow_modules: packages, beside ours and the config's own, whose constructors the workdir may
        name; see ``vision.run.workdir.read_config``.
      batch_size: of the ``Predictor``; None for 8 on CPUs, whose caches hold no more, and 32
        elsewhere.
      threads: of the ``Predictor``.
      workers: of the ``Predictor``.

    Raises:
      UserError: no run, several, one without a checkpoint or without an evaluator that reads
        images; the message has the way out.
    """
    if isinstance(allow_modules, str):
        raise TypeError("allow_modules is a list of packages, not one text")
    if batch_size is None:
        batch_size = 8 if jax.default_backend() == "cpu" else 32
    if (source := weights_source(os.fspath(workdir))) is not None:
        if step is not None:
            raise WorkdirError(f"{source} is no run and has no step {step}")
        loaded = load_weights(source, preprocessing)
        return dataclasses.replace(loaded, batch_size=batch_size, threads=threads, workers=workers)
    folder = Path(workdir).expanduser()
    if not folder.is_dir():
        raise WorkdirError(f"{folder}: no such folder; give the workdir of a run")
    if stages := run_folders(folder, allow_modules):
        listed = ", ".join(map(str, stages))
        raise WorkdirError(f"{folder} holds several runs; take one as the workdir: {listed}")
    if not complete(folder_of(folder)):
        raise WorkdirError(
            f"{folder} has no checkpoint: train.py with --workdir={folder} saves one as the "
            "config's checkpoints.every says, and at the end"
        )
    run = _read(folder, named_step(folder, step), allow_modules)
    prepared = of_run(run, preprocessing, str(folder))
    predictor = Predictor(
        source=f"{folder} at step {run.step}",
        classes=(),
        preprocessing=prepared,
        forward=run.predict,
        variables=run.variables,
        mesh=run.mesh,
        run=run,
        text_side=TextSide(
            run.experiment.objective,
            functools.partial(tokenizer_of, run, str(folder)),
            str(folder),
        ),
        batch_size=batch_size,
        threads=threads,
        workers=workers,
    )
    names = run.data_spec.class_names or tuple(map(str, range(predictor.num_logits)))
    classes = unique_names(names) if predictor.num_logits else ()
    return dataclasses.replace(predictor, classes=classes)


def _read(folder: Path, step: int | None, allow: Collection[str]) -> Run:
    try:
        return load_run(folder, step, None, allow)
    except MeshError as error:
        log.warning("%s: %s; here every device has all parameters", folder, error)
        return load_run(folder, step, _WHOLE, allow)

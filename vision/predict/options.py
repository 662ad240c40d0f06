"""The flags by which command lines say which model they ask, and how it reads images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from vision.config.cli import UsageError, whole_number

if TYPE_CHECKING:
    from vision.predict.predictor import Predictor

FLAGS = {
    "workdir": "folder of the run",
    "model": "instead of a run: zoo: and the name of a member; timm:, open_clip: or transformers: "
    "and a name on the hub or a folder; or a folder with their config.json and weights",
    "step": "of the checkpoint, or best; the newest valid one by default",
    "preprocessing": "evaluator of the config whose ops are taken, or weights with a card, "
    "timm:NAME; by default the first Classification, else the first that reads images",
    "classes": "names for a dual encoder, separated by commas",
    "classes_file": "the same from a file: one per line, or a JSON list",
    "templates_file": "sentences with {} for the name: one per line, or a JSON list",
    "batch_size": "images at a time; 8 by default on CPUs, 32 elsewhere",
    "threads": "that read and decode, 4 by default",
    "workers": "processes that read and decode; none by default",
    "allow_modules": "packages whose constructors the workdir may name, separated by commas",
}


def check_source(options: SimpleNamespace) -> None:
    """Raises UsageError unless exactly one of ``--workdir`` and ``--model`` is given."""
    workdir, model = text(options, "workdir"), text(options, "model")
    if workdir is None and model is None:
        raise UsageError("one of --workdir=... and --model=... is required (see --help)")
    if workdir is not None and model is not None:
        raise UsageError(
            f"--workdir={workdir} and --model={model} are two models: leave one of them out"
        )


def loaded(options: SimpleNamespace) -> Predictor:
    """What a command line with ``FLAGS`` names.

    Raises:
      UserError: flags that do not go together, or no such run or weights.
    """
    from vision.data.prompts import PLAIN, check_names, load_names, load_templates
    from vision.predict.load import load
    from vision.predict.pretrained import weights_source

    check_source(options)
    workdir, model = text(options, "workdir"), text(options, "model")
    allowed, step = text(options, "allow_modules"), text(options, "step")
    given = {
        name: whole_number(name, count)
        for name in ("batch_size", "threads", "workers")
        if (count := text(options, name)) is not None
    }
    listed, file = text(options, "classes"), text(options, "classes_file")
    templates = text(options, "templates_file")
    if listed is not None and file is not None:
        raise UsageError("--classes and --classes_file do not go together")
    names = None if listed is None else tuple(name.strip() for name in listed.split(","))
    names = load_names(file) if file is not None else names
    if names is not None:
        check_names(names, "--classes")
    elif templates is not None:
        raise UsageError("--templates_file needs --classes or --classes_file")
    sentences = load_templates(templates) if templates else PLAIN
    if model is not None and weights_source(model) is None:
        raise UsageError(
            f"--model={model}: neither timm:, open_clip: or transformers: with a name or a "
            "folder, nor zoo: with the name of a member, nor a folder with "
            "open_clip_config.json or one of their config.json; a run is --workdir=..."
        )
    predictor = load(
        model or str(workdir),
        step=step,
        preprocessing=text(options, "preprocessing") or "",
        allow_modules=tuple(allowed.split(",")) if allowed else (),
        **given,
    )
    if names is None:
        return predictor
    return predictor.zero_shot(names, sentences)


def text(options: SimpleNamespace, name: str) -> str | None:
    """The value of a flag; None where it is absent or empty.

    Raises:
      UsageError: it is given without a value.
    """
    value = getattr(options, name)
    if value is True:
        raise UsageError(f"--{name} needs a value: --{name}=... (see --help)")
    return value or None

"""README.md of an exported model, in the form that the Hugging Face hub shows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import vision
from vision.config.hints import CONSTRUCTOR
from vision.config.specs import to_plain
from vision.run.restore import Run
from vision.run.sealed import NotAsWrittenError, unseal
from vision.run.workdir import read_config
from vision.weights.mapping import WeightsError

_USE = {
    "ours": 'init_from = spec(InitFrom, source="safetensors:<this folder>")  # in a config',
    "timm": 'model = timm.create_model("local-dir:<this folder>", pretrained=True)',
    "open_clip": 'model, preprocess = open_clip.create_model_from_pretrained("local-dir:<folder>")',
    "transformers": 'model = transformers.AutoModel.from_pretrained("<this folder>")',
}


def model_card(
    workdir: Path,
    run: Run,
    files: Collection[str],
    tensors: Mapping[str, np.ndarray],
    *,
    to: str,
    licence: str,
    texts: Mapping[str, str],
) -> str:
    """The card's text: model, training data, metrics, and how to load it.

    Args:
      workdir: of the run; its ``evaluation.json`` is quoted where it is of the same step.
      run: the run.
      files: names of the files beside it.
      tensors: what is exported.
      to: whose names they have.
      licence: identifier.
      texts: ``digest`` of the tensors, and perhaps ``extra_state``.
    """
    config: Any = to_plain(read_config(workdir))
    parameters = sum(x.size for x in tensors.values())
    dtypes = ", ".join(sorted({x.dtype.name for x in tensors.values()}))
    kind = config["model"][CONSTRUCTOR].rpartition(".")[2] if config.get("model") else "model"
    front = ["---", f"license: {licence}", "library_name: " + ("vision" if to == "ours" else to)]
    if run.data_spec.class_names:
        front += ["pipeline_tag: image-classification"]
    lines = [
        *front,
        "---",
        "",
        f"# {kind} of {workdir.resolve().name}",
        "",
        f"{parameters:,} numbers ({dtypes}) in {len(tensors)} tensors, named as "
        f"{'in this code base' if to == 'ours' else to} names them.",
        "",
        f"- training step: {run.step}",
        f"- trained on: `{_source(config)}`, {run.data_spec.num_examples:,} examples",
        f"- classes: {len(run.data_spec.class_names) or 'none'}",
        f"- licence: {licence}",
        f"- digest of the tensors (SHA-256): {texts['digest']}",
        f"- written by: {_version()}",
        "",
        "```python",
        _USE[to],
        "```",
        "",
        "## Measured",
        "",
        *_metrics(workdir, run.step),
        "",
        "## Config",
        "",
        "```json",
        json.dumps({key: config[key] for key in ("model", "objective", "total") if key in config}),
        "```",
        "",
        f"Beside this file: {', '.join(sorted(files))}.",
    ]
    return "\n".join(lines) + "\n"


def _metrics(workdir: Path, step: int) -> list[str]:
    path = workdir / "evaluation.json"
    if not path.exists():
        return ["Not evaluated: `python evaluate.py --workdir=...` had not been run."]
    try:
        report, _ = unseal(path.read_bytes().decode("utf-8", "backslashreplace"))
    except NotAsWrittenError as error:
        raise WeightsError(
            f"{path} is damaged ({error}): run python evaluate.py --workdir={workdir} again"
        ) from error
    if report["step"] != step:
        return [f"The evaluation in the workdir is of step {report['step']}, not of this one."]
    rows = [
        f"| {name} | {metric} | {'' if value is None else format(value, '.6g')} |"
        for name, result in report["evaluators"].items()
        for metric, value in result["metrics"].items()
    ]
    return ["| evaluator | metric | value |", "|---|---|---|", *rows]


def _source(config: Mapping[str, Any]) -> str:
    source = (config.get("data") or {}).get("source") or {}
    fields = [
        f"{k}={v!r}" for k, v in source.items() if k != CONSTRUCTOR and not isinstance(v, dict)
    ]
    return f"{source.get(CONSTRUCTOR, '?').rpartition('.')[2]}({', '.join(fields)})"


def _version() -> str:
    return f"vision {vision.__version__}, jax {metadata.version('jax')}"

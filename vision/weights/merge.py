"""State of a run with adapters, merged into that of the plain tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.checkpoint.reading import flatten
from vision.config.hints import CONSTRUCTOR
from vision.config.schema import locate
from vision.config.specs import build
from vision.models.adapted import AdaptedTower, merged
from vision.run.workdir import CONFIG, read_config
from vision.weights.mapping import Tensor, WeightsError

_PARAMS, _STATE = "params.model.", "model_state.model."


def merged_state(workdir: Path, tensors: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The arrays of a state of a run, with adapters merged into the kernels they belong to.

    Args:
      workdir: folder of the run.
      tensors: from ``load_state``: everything below ``params.model.`` and ``model_state.model.``;
        others are passed on.

    Raises:
      WeightsError: the run has prompts, which a plain tower cannot have.
    """
    if not (workdir / CONFIG).exists():
        return tensors
    node: Any = read_config(workdir).get("model")
    if node is None or locate(node[CONSTRUCTOR]) is not AdaptedTower:
        return tensors
    others = {k: x for k, x in tensors.items() if not k.startswith((_PARAMS, _STATE))}
    variables = {"params": _nested(tensors, _PARAMS), "model_state": _nested(tensors, _STATE)}
    try:
        plain = merged(build(node), variables)[1]
    except ValueError as error:
        raise WeightsError(f"{workdir}: {error}") from error
    tower_arrays = flatten({"params": {"model": plain["params"]}})
    tower_arrays |= flatten({"model_state": {"model": plain["model_state"]}})
    return {**others, **tower_arrays}


def _nested(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if not name.startswith(prefix):
            continue
        *folders, last = name.removeprefix(prefix).split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = tensor
    return tree

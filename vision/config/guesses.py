"""What people guess on the command line, and where the config has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vision.config.hints import CONSTRUCTOR

# Names that other programs have for values of ours.
_OTHER_NAMES = {
    "bs": "batch_size",
    "epochs": "total",
    "lr": "learning_rate",
    "max_epochs": "total",
    "max_steps": "total",
    "num_epochs": "total",
    "num_workers": "workers",
    "steps": "total",
    "wd": "weight_decay",
}


def did_you_mean(specs: Iterable[tuple[str, Any]], key: str) -> str:
    """``; did you mean config.data.batch_size?``: the places nearest to the root where a config has
    a value of this name, or of ours for it; empty where it has none.

    Args:
      specs: path and node of every spec of the config.
      key: the last part of what was guessed, such as ``lr``.
    """
    name = _OTHER_NAMES.get(key, key)
    paths = [f"{path}.{name}" if path else name for path, node in specs if name in node]

    def distance(path: str) -> tuple[bool, int]:
        return path.startswith("evaluators"), path.count(".")

    nearest = min(map(distance, paths), default=None)
    shown = " or ".join(f"config.{path}" for path in paths if distance(path) == nearest)
    return f"; did you mean {shown}?" if shown else ""


def cannot_replace(node: Any, path: str) -> str:
    """Says that a command line cannot put another constructor in the place of ``node``."""
    name = str(node[CONSTRUCTOR]).rpartition(".")[2]
    example = next((key for key in node if key != CONSTRUCTOR), "key")
    return (
        f"config.{path} is spec({name}, ...), which a command line cannot replace: change its "
        f"values, as in --config.{path}.{example}=..., or write another spec into a config file "
        "of your own"
    )

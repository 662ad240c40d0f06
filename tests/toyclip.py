"""The dual encoder of ``configs/clip_scenes.py``, trained once and kept in ``.cache/toyclip``.

Tests take the fixture ``toyclip``, a shorter run; claims call ``toyclip(total=None)`` for the
config's own length.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vision.config import specs as configs
from vision.run import experiment
from vision.run.restore import Run, load_run

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "clip_scenes.py"
CACHE = ROOT / ".cache" / "toyclip"
QUICK = "100 steps"
# Rooms whose code can change the weights; others only read them.
_ROOMS = ("core", "data", "models", "blocks", "objectives")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy", "opencv-python-headless")


def toyclip(
    total: str | None = QUICK, overrides: Mapping[str, str] | None = None, root: Path = CACHE
) -> Run:
    """The trained run: variables, ``predict``, and the config's evaluators.

    Args:
      total: length of the training; None for the config's own.
      overrides: other values of the config, as on a command line: ``{"seed": "1"}``.
      root: folder of the cache.
    """
    return load_run(trained(total, overrides, root))


def settings(total: str | None = QUICK, overrides: Mapping[str, str] | None = None) -> Any:
    """The checked config of a run; arguments as in ``toyclip``."""
    config = configs.load(str(CONFIG), dict(_given(total, overrides)))
    experiment.check(config, CONFIG.name)
    return config


def _given(total: str | None, overrides: Mapping[str, str] | None) -> Iterable[tuple[str, str]]:
    return {**(overrides or {}), **({} if total is None else {"total": total})}.items()


def folder(config: Any, root: Path = CACHE) -> Path:
    """Where the run of ``config`` is kept: named by its values, our code and the packages.

    The kind and number of devices are no part of the name: they change the rounding only.
    """
    digest = hashlib.sha256(configs.to_json(config).encode())
    for room in _ROOMS:
        for path in sorted((ROOT / "vision" / room).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for package in _PACKAGES:
        digest.update(f"{package}=={metadata.version(package)}\0".encode())
    return root / digest.hexdigest()[:24]


def trained(
    total: str | None = QUICK, overrides: Mapping[str, str] | None = None, root: Path = CACHE
) -> Path:
    """The workdir of the finished run, which is trained here if it is not there.

    It is trained by ``train.py`` on one device with full optimisation, which tests do without. Of
    several processes that want the same one, the first trains and the others wait.
    """
    workdir = folder(settings(total, overrides), root)
    root.mkdir(parents=True, exist_ok=True)
    with workdir.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not workdir.exists():
            with tempfile.TemporaryDirectory(dir=root, prefix="training-") as temporary:
                run = Path(temporary) / "run"
                given = [f"--config.{name}={value}" for name, value in _given(total, overrides)]
                program = [sys.executable, str(ROOT / "train.py"), f"--config={CONFIG}"]
                environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
                subprocess.run(
                    [*program, f"--workdir={run}", *given],
                    check=True,
                    env=environment,
                    cwd=ROOT,
                )
                os.replace(run, workdir)
    return workdir

"""Packages that only some jobs need, and how to install them.

The messages name the packages themselves: the package index has another project called ``vision``,
which ``pip install 'vision[serve]'`` would fetch where this one runs from its checkout.
"""

from __future__ import annotations

from collections.abc import Mapping

# Those of pyproject.toml whose absence is said in a message; tests/test_extras.py compares them.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "serve": ("starlette>=1.10,<2", "uvicorn>=0.54,<1"),
    "sweep": ("optuna>=5,<6",),
    "onnx": ("jax2onnx>=0.13,<0.14", "onnxruntime>=1.32,<2"),
    "wandb": ("wandb>=0.31,<1",),
    "mlflow": ("mlflow-skinny>=3.17,<4", "sqlalchemy>=2", "alembic>=1.13"),
    "tfds": ("tensorflow-datasets>=4.9.10,<5", "array_record>=0.8.3"),
}


def pip_install(extra: str) -> str:
    """The command that installs what an extra is for.

    Args:
      extra: of pyproject.toml, one of ``EXTRAS``.
    """
    return " ".join(["pip install", *(f"'{each}'" for each in EXTRAS[extra])])

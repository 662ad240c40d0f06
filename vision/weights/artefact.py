"""A model as one compiled program: StableHLO with its weights inside, to be run without its code.

The program takes uint8 images (B, height, width, channels) of any number B, already cut to size,
and returns what the objective's ``predict`` returns for them. ``vision.weights.serve_artefact``
runs it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.errors import InconclusiveDimensionOperation

from vision.evaluate.evaluator import Predict
from vision.train.objective import Variables
from vision.weights.mapping import WeightsError
from vision.weights.preprocessing import Preprocessing

PROGRAM, LABELS = "model.stablehlo", "labels.json"
# The limit of jax.export's format, whose offsets have 32 bits.
_MOST_BYTES = 2**31 - 2**24


def weight_bytes(variables: Variables) -> int:
    """Size of what a program holds: parameters and model state."""
    leaves = jax.tree.leaves((variables.params, variables.model_state))
    return sum(x.size * x.dtype.itemsize for x in leaves)


def program_of(
    predict: Predict, variables: Variables, card: Preprocessing
) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """uint8 images (B, height, width, channels) to those outputs of ``predict`` that have B rows.

    The arguments are those of ``make_artefact``.
    """
    constants: Variables = jax.tree.map(np.asarray, jax.device_get(variables))
    mean, std = (np.asarray(x, np.float32) for x in (card.mean, card.std))

    def program(images: jax.Array) -> dict[str, jax.Array]:
        numbers = (images.astype(jnp.float32) / 255 - mean) / std
        outputs = predict(constants, {"image": numbers})
        return {name: x for name, x in outputs.items() if x.ndim and x.shape[0] == images.shape[0]}

    return program


def make_artefact(
    predict: Predict,
    variables: Variables,
    card: Preprocessing,
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu"),
) -> bytes:
    """The program, serialised; it is lowered once for all platforms.

    Args:
      predict: ``(variables, batch) -> dict``; it is given ``image``.
      variables: become constants.
      card: size, and how pixels become numbers; resizing is not part of the program.
      platforms: that it will run on.

    Raises:
      WeightsError: more weights than the format holds, or a model that asks how many images there
        are, in Python.
    """
    if (size := weight_bytes(variables)) > _MOST_BYTES:
        raise WeightsError(f"{size:,} bytes of weights are more than a StableHLO artefact holds")
    program = program_of(predict, variables, card)
    (batch,) = jax.export.symbolic_shape("b")
    images: Any = jax.ShapeDtypeStruct((batch, *card.size, len(card.mean)), jnp.uint8)
    try:
        exported = jax.export.export(jax.jit(program), platforms=platforms)(images)
    except (TypeError, InconclusiveDimensionOperation) as error:
        if isinstance(error, TypeError) and "_DimExpr" not in str(error):
            raise
        last = traceback.extract_tb(error.__traceback__)
        place = next((at for at in reversed(last) if "site-packages" not in at.filename), last[-1])
        raise WeightsError(
            f"{place.filename}:{place.lineno} needs the number of images as an integer, and a "
            f"StableHLO program takes any number: {place.line} (x.shape[0] can stand there, "
            "len(x) and int(x.shape[0]) cannot); --onnx has a fixed number"
        ) from error
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise WeightsError(
            "a StableHLO artefact needs a package: pip install flatbuffers"
        ) from error

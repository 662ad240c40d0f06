"""A model as an ONNX file with its weights inside, for onnxruntime and what else reads ONNX.

The program is that of ``vision.weights.artefact``, uint8 images in and what ``predict`` returns
out, for one number of images at a time or for any. jax2onnx translates it, and onnxruntime runs it
on real images before it is written: what differs from our own answer is never exported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.extras import pip_install
from vision.data.decode import decode
from vision.evaluate.evaluator import Predict
from vision.run.restore import Run
from vision.train.objective import Variables
from vision.weights.artefact import program_of, weight_bytes
from vision.weights.mapping import WeightsError
from vision.weights.onnx_graph import ClosedError, open_rows, without_choices_of_truth
from vision.weights.preprocessing import Preprocessing

ONNX, OPSET = "model.onnx", 21
# Largest difference from our own answer, of the largest number of an output.
TOLERANCE = 1e-3
# Protobuf's limit of one file, 2 GiB, and room for the graph.
_MOST_BYTES = 2**31 - 2**24
# Numbers of rows by which a program for any number is translated.
_SEEN = (2, 3)


def check_packages() -> None:
    """Raises WeightsError where a package is missing."""
    missing = [
        name for name in ("jax2onnx", "onnxruntime") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise WeightsError(
            f"--onnx needs {' and '.join(missing)}: {pip_install('onnx')}; --stablehlo needs "
            "nothing more"
        )


def make_onnx(
    predict: Predict,
    variables: Variables,
    card: Preprocessing,
    images: np.ndarray,
    *,
    any_number: bool = False,
) -> tuple[bytes, dict[str, float]]:
    """The file, verified.

    Args:
      predict: ``(variables, batch) -> dict``; it is given ``image``.
      variables: become constants.
      card: size, and how pixels become numbers; resizing is not part of the program.
      images: uint8 (B, height, width, channels), real ones; the file takes B at a time.
      any_number: the file takes any number of images instead, and is verified on one and on B.

    Returns:
      The file, and per output the largest difference of onnxruntime's answer from ours, relative
      to the output's largest number.

    Raises:
      WeightsError: a package is missing, more weights than the format holds, an operation without a
        counterpart or that onnxruntime lacks, or answers that differ by more than ``TOLERANCE``.
    """
    check_packages()
    if (size := weight_bytes(variables)) > _MOST_BYTES:
        raise WeightsError(f"{size:,} bytes of weights are more than an ONNX file holds")
    return verified(program_of(predict, variables, card), {"images": images}, any_number=any_number)


def verified(
    program: Callable[[jax.Array], Mapping[str, jax.Array]],
    given: Mapping[str, np.ndarray],
    *,
    any_number: bool = False,
) -> tuple[bytes, dict[str, float]]:
    """Any program of one array as an ONNX file, and how far onnxruntime's answers are from ours.

    Args:
      program: traceable; every output has as many rows as its argument.
      given: name and value of its argument.
      any_number: of rows, instead of as many as are given; verified on one and on all of these.

    Raises:
      WeightsError: as in ``make_onnx``.
    """
    ((name, rows),) = given.items()
    ours = jax.jit(program)
    counts = dict.fromkeys((1, len(rows)) if any_number else (len(rows),))
    wanted = [{k: np.asarray(x) for k, x in ours(jnp.asarray(rows[:n])).items()} for n in counts]
    outputs = list(wanted[0])
    if any_number:
        few = (np.resize(rows, (n, *rows.shape[1:])) for n in _SEEN)
        first, second = (_translated(program, name, each, outputs) for each in few)
        try:
            model = open_rows(first, second, _SEEN)
        except ClosedError as error:
            raise WeightsError(
                f"this model takes no open number of images ({error}): give one, --onnx=8; or "
                "--stablehlo, which takes any"
            ) from error
    else:
        model = _translated(program, name, rows, outputs)
    file = model.SerializeToString()
    found = [_compared(file, {name: rows[:n]}, w) for n, w in zip(counts, wanted, strict=True)]
    return file, {key: max(each[key] for each in found) for key in outputs}


def _translated(
    program: Callable[[jax.Array], Mapping[str, jax.Array]],
    name: str,
    rows: np.ndarray,
    names: list[str],
) -> Any:
    """The program as an ``onnx.ModelProto``, for so many rows."""
    import jax2onnx  # pyright: ignore[reportMissingImports]

    def outputs(x: jax.Array) -> tuple[jax.Array, ...]:
        found = program(x)
        return tuple(found[key] for key in names)

    try:
        with _as_traced_here(), contextlib.redirect_stdout(io.StringIO()):
            model: Any = jax2onnx.to_onnx(
                outputs,
                inputs=[jax.ShapeDtypeStruct(rows.shape, rows.dtype)],
                input_names=[name],
                output_names=names,
                opset=OPSET,
                return_mode="proto",
            )
        return without_choices_of_truth(model)
    except Exception as error:
        raise WeightsError(without_counterpart(error)) from error


def without_counterpart(error: Exception) -> str:
    """What to say of a translation that failed: the operation that has no counterpart, by name."""
    text = (str(error).splitlines() or [""])[0]
    way_out = "--stablehlo exports it as it is"
    if match := re.search(r"No plugins registered for primitive '([^']+)'", str(error)):
        return f"{match[1]!r}, an operation of this model, has no counterpart in ONNX; {way_out}"
    return f"this model cannot be translated to ONNX ({type(error).__name__}: {text}); {way_out}"


@contextlib.contextmanager
def _as_traced_here() -> Iterator[None]:
    """Has jax2onnx translate the operations that JAX traces.

    Otherwise it puts its own in the place of Flax's layers and jax.numpy's functions, with shapes
    that ``nn.scan`` does not take. Its ``jnp.cumsum``, which takes no axis by position, would stay
    in JAX's place for good. The extra ``onnx`` says with which version this holds.
    """
    from jax2onnx.converter import conversion_api  # pyright: ignore[reportMissingImports]

    cumsum = jnp.cumsum

    @contextlib.contextmanager
    def loaded() -> Iterator[None]:
        conversion_api.import_all_plugins()
        jnp.cumsum = cumsum
        yield

    replaced, before = conversion_api._activate_plugin_worlds, logging.root.manager.disable
    conversion_api._activate_plugin_worlds = loaded
    logging.disable(logging.WARNING)  # of shapes that onnx_ir writes without a type
    try:
        yield
    finally:
        conversion_api._activate_plugin_worlds = replaced
        logging.disable(before)


def _compared(
    file: bytes, given: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
) -> dict[str, float]:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a line for every constant that it folds
    providers = ["CPUExecutionProvider"]
    try:
        session: Any = onnxruntime.InferenceSession(file, options, providers=providers)
        found = session.run(list(wanted), dict(given))
    except Exception as error:  # its own classes, which have no common base
        said = (str(error).splitlines() or [""])[0].rpartition(" : ")[2]
        raise WeightsError(
            f"onnxruntime does not run this model ({said}); --stablehlo exports it as it is"
        ) from error
    differences = {}
    for (name, ours), theirs in zip(wanted.items(), found, strict=True):
        difference = np.abs(theirs.astype(np.float64) - ours).max(initial=0)
        differences[name] = float(difference / max(np.abs(ours).max(initial=0), 1e-12))
        if not differences[name] <= TOLERANCE:
            raise WeightsError(
                f"onnxruntime's {name!r} differs from ours by {differences[name]:.1e} of its "
                "largest number: nothing is exported"
            )
    return differences


def real_images(run: Run, card: Preprocessing, count: int) -> np.ndarray:
    """Images of the first evaluator that has any, cut to size: uint8 (count, H, W, channels).

    Evenly over its records, repeated where there are fewer.

    Raises:
      WeightsError: no evaluator reads images, or one cannot be read.
    """
    for name, evaluator in (run.experiment.evaluators or {}).items():
        data = getattr(evaluator, "data", None)
        if data is None or not getattr(data, "ops", ()) or not len(data.source):
            continue
        places = np.linspace(0, len(data.source) - 1, count).astype(int)
        mode = "grey" if len(card.mean) == 1 else "rgb"
        images = []
        for place in places.tolist():
            record = data.source[place]
            image = record["image"]
            example = {"image": decode(image, mode=mode) if isinstance(image, bytes) else image}
            for op in card.geometry():
                example = op(example, np.random.default_rng(0))
            pixels = np.asarray(example["image"])
            if pixels.dtype != np.uint8 or pixels.shape != (*card.size, len(card.mean)):
                raise WeightsError(
                    f"{data.source.key(place)} of evaluator {name} becomes {pixels.dtype} "
                    f"{pixels.shape}, and not uint8 {(*card.size, len(card.mean))}"
                )
            images.append(pixels)
        return np.stack(images)
    raise WeightsError("no evaluator of the run reads images, on which to verify an ONNX file")

"""A dual encoder without training: pixels are the image's embedding, words add up to the text's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.data.tokenizers import BytePairTokenizer
from vision.evaluate.evaluator import Evaluator, evaluate
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

WIDTH = 12
TOKENIZER = BytePairTokenizer(merges=(), length=32)
_RNG = np.random.default_rng(0)
WORDS = _RNG.normal(size=(TOKENIZER.vocab_size, WIDTH)).astype(np.float32)
WORDS[:3] = 0  # pad, bos, eos
POSITIONS = np.where(_RNG.random((TOKENIZER.length, WIDTH)) < 0.5, -1, 1).astype(np.float32)


def unit(x: Any) -> Any:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def predict(variables: Variables, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Letters count with a sign for their place, so that the order of words matters."""
    out = {}
    if "image" in batch:
        pixels = batch["image"].reshape(len(batch["image"]), -1)
        out["image/embedding"] = out["embedding"] = unit(pixels * variables.params["scale"])
    if "text" in batch:
        letters = variables.params["words"][batch["text"]] * POSITIONS
        out["text/embedding"] = unit(letters.sum(-2))
    return out


def texts_of(texts: Sequence[str]) -> np.ndarray:
    """Embeddings of texts by the same sums, in numpy."""
    letters = (WORDS[TOKENIZER.encode(texts)] * POSITIONS).sum(-2)
    return letters / np.linalg.norm(letters, axis=-1, keepdims=True)


def data(batch_size: int = 16, class_names: tuple[str, ...] = (), **arrays: Any) -> EvalData:
    if "image" in arrays:
        image = np.asarray(arrays["image"], np.float32)
        arrays["image"] = image.reshape(len(image), 3, 4, 1)
    source = Arrays(arrays, "made", class_names)
    return EvalData(source, batch_size=batch_size, threads=0)


def run(evaluator: Evaluator, devices: int = 1, function: Any = predict) -> dict[str, Any]:
    """Numbers and figures, through the real ``evaluate`` on a real mesh."""
    mesh = Mesh().build(jax.devices()[:devices])
    params = {"scale": np.float32(1), "words": WORDS}
    numbers, figures = evaluate(evaluator, function, Variables(params, {}, {}), 1, mesh)
    clash = {name: figures[name] for name in figures if name in numbers}
    assert not clash
    return {**numbers, **figures}

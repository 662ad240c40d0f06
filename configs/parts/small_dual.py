"""The dual encoder that claims about images and texts train: scenes of 24 pixels, seconds a run."""

from __future__ import annotations

import functools
from typing import Any

import jax
import ml_collections
import numpy as np

from configs.parts import small_pairs
from configs.parts.small import train_data
from vision.blocks.contrast import Softmax
from vision.config.specs import build, spec
from vision.data import ops
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.data.sources.scenes import Scene, Scenes, render
from vision.data.sources.scenes.translate_caption import TranslateCaption
from vision.data.tokenizers import WordTokenizer
from vision.objectives.contrast import Contrast
from vision.papers.claims import Run

SIZE_PX = 24


def world(split: str, num_examples: int, num_objects: tuple[int, int], caption: str) -> Scenes:
    """Scenes of plain things, with a caption of every one."""
    scenes = small_pairs.scenes(split, num_examples, ("image", caption), num_objects=num_objects)
    return build(scenes)


@functools.cache
def tokenizer(length: int) -> WordTokenizer:
    """Every word of captions, in English and in the first foreign language."""
    return build(small_pairs.tokenizer(length, languages=(0, 1)))


@functools.cache
def pairs(
    split: str,
    num_examples: int,
    caption: str,
    length: int,
    num_objects: tuple[int, int] = (1, 2),
    least_told: float = 1.0,
    languages: tuple[int, ...] = (0,),
) -> Arrays:
    """Scenes drawn once: ``image`` uint8 and ``text``, the tokens of one caption each.

    Args:
      caption: a feature of ``Scenes``.
      length: of a text, in tokens.
      num_objects: fewest and most in a scene.
      least_told: smallest share of what is true that a caption says: ``ShortenCaption``.
      languages: each caption is in one of these.
    """
    say = (ops.ShortenCaption(feature=caption, output=caption, share=(least_told, 1.0)),)
    speak = TranslateCaption(feature=caption, languages=languages)
    tokenize = ops.Tokenize(tokenizer(length), feature=caption)
    data = EvalData(
        world(split, num_examples, num_objects, caption),
        batch_size=500,
        ops=(*(say if least_told < 1 else ()), speak, tokenize),
        threads=1,
    )
    loader = data.loader(process_index=0, process_count=1)
    batches = [{k: x[batch["_mask"]] for k, x in batch.items()} for batch in loader]
    arrays = {k: np.concatenate([batch[k] for batch in batches]) for k in ("image", "text")}
    return Arrays(arrays, f"{split} scenes")


def dual(
    source: ml_collections.ConfigDict,
    text: ml_collections.ConfigDict,
    steps: int,
    **objective: Any,
) -> ml_collections.ConfigDict:
    """A ViT of two blocks beside a text tower, trained on ``image`` and ``text`` of a source.

    Args:
      source: spec of arrays in memory.
      text: spec of the text tower.
      steps: of 64 pairs.
      **objective: fields of ``Contrast``.
    """
    fields: dict[str, Any] = {"criterion": spec(Softmax), "duplicates": "ignore", **objective}
    data = train_data(source, 64, threads=0)
    return small_pairs.experiment(data, text, steps, None, objective=spec(Contrast, **fields))


def read(source: Arrays) -> EvalData:
    """The records of ``source`` for evaluators."""
    return EvalData(source, batch_size=256, ops=(ops.ValueRange(low=-1, high=1),), threads=0)


def images(scenes: list[Scene]) -> np.ndarray:
    """Pictures of scenes, uint8 (N, 24, 24, 3)."""
    return np.stack([render(scene, (SIZE_PX, SIZE_PX)).image for scene in scenes])


def embed(run: Run, name: str, rows: np.ndarray) -> np.ndarray:
    """Unit vectors (N, D) of images uint8 or texts int32.

    Args:
      run: a trained dual encoder.
      name: ``image`` or ``text``.
      rows: (N, ...).
    """
    program = jax.jit(run.predict)
    embeddings = []
    with jax.set_mesh(run.mesh):
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            padded = np.zeros((500, *rows.shape[1:]), rows.dtype)
            padded[: len(part)] = part
            batch: dict[str, Any] = {name: padded, "_mask": np.arange(500) < len(part)}
            if name == "image":
                batch = BatchValueRange(low=-1, high=1)(batch, None)  # pyright: ignore[reportArgumentType]
            embeddings.append(
                np.asarray(program(run.variables, batch)[f"{name}/embedding"])[: len(part)]
            )
    return np.concatenate(embeddings)

"""Features of drawings that come with the repository: a tower of a package, asked once.

A member of this kind has no weights but ``features.safetensors``: of every drawing of ``Emoji`` in
its default tone, in the order of ``packed.index().drawings``, the leading principal components of
what EfficientNet-Lite0 with its ImageNet weights pools. Studies that fit heads or text towers on
frozen features run on them in seconds, without the package and without a tower.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.errors import UserError
from vision.config.files import replace_file
from vision.data.sources.emoji import packed
from vision.data.sources.emoji.compose import Placed, compose
from vision.data.sources.emoji.packed import Drawing, Sign
from vision.data.sources.emoji.source import unseen_families
from vision.predict.pretrained import load_weights
from vision.probes.linear import fit_logistic
from vision.weights import packages, zoo
from vision.weights.reader import open_weights, write_safetensors

FEATURES = zoo.FEATURES
SIDE_PX, FILLED = 128, 0.44
"""Side of the white picture that the tower sees, and half of the drawing's share of it."""
COMPONENTS = 192
SAMPLE = 16
"""Drawings that a test asks the tower about again; evenly spread."""
MOST_BYTES = 2_000_000
_BATCH = 32
_HEAD_DECAY = 1e-4
LICENCE = (
    "features: Apache-2.0, as the package of the weights; drawings: Apache-2.0 (Noto), CC-BY-4.0 "
    "(Twemoji), MIT (Fluent)"
)


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of drawings, and how they were made from what the tower pools.

    Attributes:
      x: float32 (N, R), principal components, by falling variance; restored from 8 bits.
      drawings: the N drawings.
      mean: float32 (D,), of pooled features.
      matrix: float32 (D, R), from pooled features less their mean to components.
      step: float32 (R,), by how much neighbouring values of the 8 bits differ.
    """

    x: np.ndarray
    drawings: tuple[Drawing, ...]
    mean: np.ndarray
    matrix: np.ndarray
    step: np.ndarray

    def components(self, pooled: np.ndarray) -> np.ndarray:
        """float32 (N, R) of pooled features (N, D), not rounded."""
        return (np.asarray(pooled, np.float32) - self.mean) @ self.matrix


def drawings() -> tuple[Drawing, ...]:
    """All drawings in the default skin tone, by house and emoji."""
    return tuple(each for each in packed.index().drawings if each.tone == 0)


@functools.cache
def read(name: str = "emoji_lite0_features") -> Features:
    """The features of a member.

    Raises:
      WeightsError: there is none of that name, or it is damaged.
    """
    stored = open_weights(zoo.folder_of(name, features=True) / FEATURES)
    values = {key: np.asarray(array[...], np.float32) for key, array in stored.items()}
    x = values["features"] * values["step"]
    x.flags.writeable = False
    return Features(x, drawings(), values["mean"], values["matrix"], values["step"])


def pooled(source: str, asked: Sequence[Drawing]) -> np.ndarray:
    """float32 (N, D): what the tower of a package pools of drawings on white.

    Args:
      source: ``package:NAME``.
      asked: drawings.

    Raises:
      WeightsError: the package is not known here or not installed.
    """
    predictor = load_weights(source, "")
    program = jax.jit(predictor.forward)
    found = []
    with jax.set_mesh(predictor.mesh):
        for start in range(0, len(asked), _BATCH):
            part = asked[start : start + _BATCH]
            images = np.zeros((_BATCH, SIDE_PX, SIDE_PX, 3), np.float32)  # one program for all
            for i, drawing in enumerate(part):
                images[i] = _picture(drawing)
            batch = {"image": jnp.asarray(images), "_mask": jnp.arange(_BATCH) < len(part)}
            told = program(predictor.variables, batch)
            found.append(np.asarray(told["embedding"], np.float32)[: len(part)])
    return np.concatenate(found)


def _picture(drawing: Drawing) -> np.ndarray:
    """float32 (side, side, 3) in -1..1, a drawing on white."""
    thing = Placed(drawing, FILLED, 0.5, 0.5, 0.0)
    return compose(None, (thing,), (SIDE_PX, SIDE_PX)).image / np.float32(127.5) - 1


def make(name: str, planned: Mapping[str, Any], workdirs: Path) -> None:
    """Writes a member's features and card.

    What the tower pooled is kept in ``workdirs`` and not asked for again.

    Args:
      name: of the member.
      planned: its entry in the plan; ``features`` is the source of the tower.
      workdirs: folder of runs.
    """
    source, folder, workdir = str(planned["features"]), zoo.zoo_folder() / name, workdirs / name
    started, all_of = time.perf_counter(), drawings()
    kept, took = workdir / "pooled.npy", workdir / "seconds.json"
    if not (kept.exists() and took.exists()):
        workdir.mkdir(parents=True, exist_ok=True)
        values = pooled(source, all_of)
        with replace_file(kept) as temporary, temporary.open("wb") as file:
            np.save(file, values)
        took.write_text(json.dumps(time.perf_counter() - started))
    values = np.load(kept)
    mean = values.mean(0, dtype=np.float64)
    _, _, directions = np.linalg.svd(values - mean, full_matrices=False)
    largest = np.abs(directions[:COMPONENTS]).argmax(1)  # the sign of a component is a convention
    signs = np.sign(directions[np.arange(COMPONENTS), largest])
    matrix = (directions[:COMPONENTS] * signs[:, None]).T.astype(np.float16)
    x = (values - mean.astype(np.float32)) @ matrix.astype(np.float32)
    step = (np.abs(x).max(0) / 127).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "features": np.round(x / step).astype(np.int8),
        "mean": mean.astype(np.float32),
        "matrix": matrix,
        "step": step,
    }
    write_safetensors(folder / FEATURES, tensors, {})
    data = (folder / FEATURES).read_bytes()
    package = source.removeprefix(f"{packages.SCHEME}:")
    card: dict[str, Any] = {
        "features": source,
        "version": importlib.metadata.version(package),
        "licence": LICENCE,
        "source_sha256": hashlib.sha256(packages.file_of(package).read_bytes()).hexdigest(),
        "command": f"python -m vision.zoo --make={name}",
        "minutes": round(json.loads(took.read_text()) / 60, 1),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
        "features_sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "shape": list(x.shape),
        "variance": round(float(x.var(0).sum() / values.var(0).sum()), 6),
        "data": {"vision/data/sources/emoji/emoji.zip": packed.SHA256},
    }
    _write(folder, card)
    read.cache_clear()
    _write(folder, {**card, "reaches": reached(read(name))})
    if len(data) > MOST_BYTES:
        raise UserError(f"{folder / FEATURES} has {len(data):,} bytes; at most {MOST_BYTES:,} ship")


def _write(folder: Path, card: dict[str, Any]) -> None:
    with replace_file(folder / zoo.CARD) as temporary:
        text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def reached(features: Features) -> dict[str, dict[str, float]]:
    """What a linear head on the features names, six digits after the point.

    It learns from the seen emoji by Noto and Twemoji; ``unseen`` are other emoji by them,
    ``new_house`` the seen ones by Fluent, ``unseen_new_house`` neither. ``neighbours`` is how often
    the nearest drawing by Noto, by the cosine, is the same emoji as one by Fluent.
    """
    signs = packed.index().emoji
    held = unseen_families(0.2)
    subject = [signs[each.emoji] for each in features.drawings]
    there = np.array([packed.GROUPS[sign.group] != "component" for sign in subject])
    unseen = np.array([sign.family in held for sign in subject])
    house = np.array([each.house for each in features.drawings])
    parts = {
        "unseen": unseen & (house < 2),
        "new_house": ~unseen & (house == 2),
        "unseen_new_house": unseen & (house == 2),
    }
    found: dict[str, dict[str, float]] = {name: {} for name in parts}
    learned = there & ~unseen & (house < 2)
    for level in ("group", "subgroup"):
        classes, label = _labels(subject, level)
        head = fit_logistic(features.x[learned], label[learned], classes, _HEAD_DECAY)
        for name, part in parts.items():
            rows = there & part
            right = head.logits(features.x[rows]).argmax(-1) == label[rows]
            found[name][f"{level} top1"] = round(float(right.mean()), 6)
    unit = features.x / np.linalg.norm(features.x, axis=1, keepdims=True)
    emoji = np.array([each.emoji for each in features.drawings])
    asked, known = np.flatnonzero(house == 2), np.flatnonzero(house == 0)
    nearest = known[(unit[asked] @ unit[known].T).argmax(1)]
    both = np.isin(emoji[asked], emoji[known])
    same = emoji[nearest] == emoji[asked]
    found["neighbours"] = {"top1": round(float(same[both].mean()), 6)}
    return found


def _labels(subject: Sequence[Sign], level: str) -> tuple[int, np.ndarray]:
    label = np.array([getattr(sign, level) for sign in subject])
    return int(label.max()) + 1, label

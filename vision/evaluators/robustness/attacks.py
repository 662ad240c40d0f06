"""Attacks on a model's evaluation batches, whose progress is stored on disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vision.blocks.attack import Attack, AttackState, LogitsFn, ended, init, run, updates
from vision.blocks.attack_rules import cross_entropy
from vision.checkpoint.reading import flatten
from vision.config.files import replace_file
from vision.evaluate.evaluator import Predict
from vision.evaluators.image_text.embeddings import Rows
from vision.parallel import cluster
from vision.run.workdir import WorkdirError
from vision.train.objective import Batch, Variables

log = logging.getLogger(__name__)

Target = Literal["least_likely", "runner_up"]
_SAVES = 10  # of an attack's state while it runs on a batch


@dataclasses.dataclass(frozen=True)
class Victim:
    """A model as attacks see it: images in 0..1 to logits.

    Attributes:
      predict: of the run.
      logits: name of the logits (B, K) that it gives.
      label: name of an int (B,) entry of the batches.
      mean, std: what the batches are normalised with: one number for all channels, or one each.
      target: of targeted attacks: of the wrong classes the least likely or the likeliest.
      seed: of all attacks.
    """

    predict: Predict
    logits: str
    label: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    target: Target
    seed: int

    def pixels(self, image: jax.Array) -> jax.Array:
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(
                f"attacks need floating-point images in the batch, and 'image' is {image.dtype}: "
                "put ops.ValueRange into data.ops"
            )
        if len(self.mean) not in (1, image.shape[-1]):
            raise ValueError(
                f"mean and std have {len(self.mean)} numbers and images {image.shape[-1]} "
                "channels: give one each, or one for all"
            )
        return image.astype(jnp.float32) * _channels(self.std) + _channels(self.mean)

    def of(self, variables: Variables, batch: Batch) -> LogitsFn:
        def logits(pixels: jax.Array) -> jax.Array:
            image = (pixels - _channels(self.mean)) / _channels(self.std)
            outputs = self.predict(
                variables, {**batch, "image": image.astype(batch["image"].dtype)}
            )
            if self.logits not in outputs:
                raise ValueError(
                    f"attacks need {self.logits!r} from the objective's predict; it gives "
                    f"{', '.join(sorted(outputs)) or 'nothing'}"
                )
            return outputs[self.logits].astype(jnp.float32)

        return logits


def clean(
    victim: Victim, variables: Variables, batch: Batch, limit: int
) -> tuple[Rows, dict[str, jax.Array]]:
    """The model's outputs before any attack.

    Returns:
      On the host, of all rows: ``index``, ``valid`` (a record below ``limit``), ``label``,
      ``right``, ``zero`` (the gradient of the cross-entropy is zero in every pixel), ``nonfinite``
      (logits), ``low`` and ``high`` (of the pixels), and the number of ``classes``. On the devices
      ``pixels`` in 0..1, ``target`` and ``right``.
    """
    for name in ("image", victim.label):
        if name not in batch:
            raise ValueError(f"attacks need {name!r} in a batch; it has {', '.join(sorted(batch))}")
    program = _clean_program(victim, limit, batch["_mask"].sharding)
    rows, on_device = program(variables, dict(batch))
    return jax.device_get(rows), on_device


@functools.lru_cache(maxsize=32)
def _clean_program(victim: Victim, limit: int, split: NamedSharding) -> Any:
    def program(variables: Variables, batch: Batch) -> tuple[Any, Any]:
        label, index = batch[victim.label], batch["_index"]
        valid = batch["_mask"].astype(bool) & (index < limit)
        pixels = victim.pixels(batch["image"])
        clipped, logits_fn = jnp.clip(pixels, 0, 1), victim.of(variables, batch)

        def total(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = logits_fn(x)
            return cross_entropy(logits, label, targeted=False).sum(), logits

        gradient, logits = jax.grad(total, has_aux=True)(clipped)
        finite = jnp.isfinite(logits).all(-1)
        best = jnp.where(finite, jnp.argmax(logits, -1), -1)
        correct = valid & (label >= 0) & (best == label)
        true_class = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
        if victim.target == "least_likely":
            target = jnp.argmin(jnp.where(true_class, jnp.inf, logits), -1)
        else:
            target = jnp.argmax(jnp.where(true_class, -jnp.inf, logits), -1)
        rows = {
            "index": index,
            "valid": valid,
            "label": label,
            "right": correct,
            "zero": (gradient == 0).all((1, 2, 3)),
            "nonfinite": ~finite,
            "low": pixels.min((1, 2, 3)),
            "high": pixels.max((1, 2, 3)),
            "classes": jnp.asarray(logits.shape[-1]),
        }
        return rows, {"pixels": clipped, "target": target.astype(jnp.int32), "right": correct}

    return jax.jit(program, out_shardings=(_replicated(split), split))


def attacked(
    victim: Victim,
    attack: Attack,
    variables: Variables,
    batch: Batch,
    on_device: Mapping[str, jax.Array],
    cache: Kept | None,
    number: int,
) -> Rows:
    """Attacks the correct rows; returns all rows' ``found``, ``l2``, ``linf`` and ``nonfinite``.

    Args:
      on_device: the second result of ``clean``.
      cache: where the state is saved while it runs; None for nowhere.
      number: of the batch.
    """
    programs = _attack_programs(victim, attack, batch["_mask"].sharding)
    state = programs.start(on_device, batch)
    total = updates(attack)
    interval = max(-(-total // _SAVES), 1) if cache else total
    step = 0
    if cache and (leaves := cache.state(number, attack, flatten(state))) is not None:
        step = int(leaves["step"])
        put = [_put(leaves[name], x.sharding) for name, x in flatten(state).items()]
        state = jax.tree.unflatten(jax.tree.structure(state), put)
    while True:
        step = min(step + interval, total)
        state = programs.go(variables, batch, state, step)
        rows = jax.device_get(programs.tell(state))
        if rows.pop("ended"):
            return rows
        if cache:
            cache.save_state(number, attack, jax.device_get(flatten(programs.gather(state))))


@dataclasses.dataclass(frozen=True)
class _Programs:
    start: Any
    go: Any
    tell: Any
    gather: Any


@functools.lru_cache(maxsize=64)
def _attack_programs(victim: Victim, attack: Attack, split: NamedSharding) -> _Programs:
    replicated = _replicated(split)

    def start(on_device: Mapping[str, jax.Array], batch: Batch) -> AttackState:
        target = on_device["target"] if attack.targeted else batch[victim.label]
        fold = functools.partial(jax.random.fold_in, jax.random.key(victim.seed))
        keys = jax.vmap(fold)(batch["_index"])
        return laid_out(init(attack, keys, on_device["pixels"], target, on_device["right"]))

    def laid_out(state: AttackState) -> AttackState:
        # One layout, also of a state read from disk, so that nothing is compiled twice.
        layout = jax.tree.map(lambda x: split if x.ndim else replicated, state)
        return jax.lax.with_sharding_constraint(state, layout)

    def advance(variables: Variables, batch: Batch, state: AttackState, until: int) -> AttackState:
        return laid_out(run(attack, victim.of(variables, batch), state, until))

    def tell(state: AttackState) -> dict[str, jax.Array]:
        delta = (state.best - state.image).reshape(len(state.best), -1)
        return {
            "found": state.found,
            "l2": jnp.linalg.norm(delta, axis=-1),
            "linf": jnp.abs(delta).max(-1),
            "nonfinite": state.nonfinite,
            "ended": ended(attack, state),
        }

    def same(state: AttackState) -> AttackState:
        return state

    return _Programs(
        jax.jit(start),
        jax.jit(advance),
        jax.jit(tell, out_shardings=replicated),
        jax.jit(same, out_shardings=replicated),
    )


@dataclasses.dataclass(frozen=True)
class Kept:
    """Files of attacks: the rows of finished batches, and the state of the one under way.

    Attributes:
      folder: of one model, one data set and one attack's settings; made when it is written.
    """

    folder: Path

    @classmethod
    def under(cls, root: Path, settings: Any) -> Kept:
        """The folder in ``root`` for these settings, which JSON can hold."""
        text = json.dumps(settings, sort_keys=True)
        return cls(root / f"attacks-{hashlib.sha256(text.encode()).hexdigest()[:16]}")

    def rows(self, number: int, attack: Attack, index: np.ndarray) -> Rows | None:
        """What ``attacked`` gave for the batch whose records are ``index``, or None."""
        rows = _load(self._file(number, attack))
        fits = rows is not None and np.array_equal(rows.pop("index", np.zeros(0)), index)
        return rows if all(cluster.gather(fits)) else None

    def save_rows(self, number: int, attack: Attack, index: np.ndarray, rows: Rows) -> None:
        self._save(self._file(number, attack), {**rows, "index": index})

    def state(self, number: int, attack: Attack, like: Mapping[str, Any]) -> Rows | None:
        """The leaves of the state under way on this batch, or None."""
        leaves = _load(self._running)
        fits = (
            leaves is not None
            and str(leaves.pop("of", "")) == self._file(number, attack).stem
            and {name: (x.shape, x.dtype) for name, x in leaves.items()}
            == {name: (x.shape, x.dtype) for name, x in like.items()}
        )
        return leaves if all(cluster.gather(fits)) else None

    def save_state(self, number: int, attack: Attack, leaves: Mapping[str, np.ndarray]) -> None:
        self._save(self._running, {**leaves, "of": np.asarray(self._file(number, attack).stem)})

    @property
    def _running(self) -> Path:
        return self.folder / "running.npz"

    def _file(self, number: int, attack: Attack) -> Path:
        digest = hashlib.sha256(repr(attack).encode()).hexdigest()[:16]
        return self.folder / f"{number:06d}-{digest}.npz"

    def _save(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        if not cluster.is_main():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replace_file(path, unique=True) as part, part.open("wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        except OSError as error:
            raise WorkdirError(
                f"attacks cannot be stored in {self.folder}: {error.strerror}; free some space, or "
                "leave --features out; the same command resumes from what is stored"
            ) from error


def _load(path: Path) -> Rows | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged and computed again: %s", path, error)
        return None


def _channels(x: tuple[float, ...]) -> np.ndarray:
    return np.asarray(x, np.float32)


def _put(x: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def _replicated(split: NamedSharding) -> NamedSharding:
    return NamedSharding(split.mesh, PartitionSpec())

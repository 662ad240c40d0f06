"""Lengths of time in steps, epochs or examples, and learning-rate schedules over them."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Protocol

import jax
import jax.numpy as jnp

from vision.config.schema import ConfigError

_LENGTH = re.compile(r"\s*([0-9][0-9_.]*(?:e[+-]?[0-9]+)?)\s*(step|epoch|example)s?\s*", re.I)


@dataclasses.dataclass(frozen=True)
class TrainLength:
    """What turns epochs and examples into steps.

    Attributes:
      num_examples: records in one epoch.
      batch_size: examples in one (global) step.
      total_steps: length of the run; 0 while it is not known yet.
    """

    num_examples: int
    batch_size: int
    total_steps: int = 0

    def steps(self, length: str, name: str = "length") -> int:
        """``"90 epochs"``, ``"10_000 steps"`` or ``"1.28e6 examples"`` as a number of steps.

        A length above zero is at least one step.

        Raises:
          ConfigError: the text is none of these; ``name`` is the config key to blame.
        """
        exact = self._exact(length, name)
        return max(round(exact), 1 if exact > 0 else 0)

    def interval(self, length: str, name: str = "length") -> Interval:
        """Due at the last step of every ``length``, which need not be whole steps."""
        return Interval(max(self._exact(length, name), 1.0))

    def _exact(self, length: str, name: str) -> float:
        match = _LENGTH.fullmatch(length)
        if not match:
            raise ConfigError(
                f"config.{name} is {length!r}; write a number and a unit: "
                "'500 steps', '90 epochs' or '1.28e6 examples'"
            )
        amount, unit = float(match[1]), match[2].lower()
        examples = {"example": 1.0, "step": self.batch_size, "epoch": self.num_examples}[unit]
        return amount * examples / self.batch_size


def check_schedule(schedule: Schedule, train_length: TrainLength, name: str) -> None:
    """Refuses a warm-up, a cool-down or both together that are longer than the run.

    Args:
      schedule: with the lengths ``warmup`` and ``cooldown`` as texts, where it has them.
      train_length: with the length of the run.
      name: of the schedule in the config, such as ``optimizer.schedule``.

    Raises:
      ConfigError: names the field, its steps and those of the run.
    """
    steps = {}
    for field in ("warmup", "cooldown"):
        if isinstance(text := getattr(schedule, field, None), str):
            steps[field] = train_length.steps(text, f"{name}.{field}")
    total = train_length.total_steps
    if sum(steps.values()) > total:
        parts = " and ".join(
            f"config.{name}.{field} is {getattr(schedule, field)!r}, {count} steps"
            for field, count in steps.items()
            if count
        )
        raise ConfigError(f"{parts}; the run has {total} steps (config.total), which must hold it")


@dataclasses.dataclass(frozen=True)
class Interval:
    """Something that happens again and again in a run.

    Attributes:
      period: steps from one time to the next, at least 1; need not be whole.
    """

    period: float

    def due(self, step: int) -> bool:
        """Whether ``step`` (counted from 1) is the one nearest to a multiple of the period."""
        multiple = max(math.ceil((step - 0.5) / self.period), 1) * self.period
        return multiple < step + 0.5


class Schedule(Protocol):
    """A learning-rate multiplier: 1 at the peak."""

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array: ...


def _warmup(step: jax.Array, warmup: int) -> jax.Array:
    # The first update already has a rate above zero, the last warm-up step the full one.
    return jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def _progress(step: jax.Array, warmup: int, total: int) -> jax.Array:
    return jnp.clip((step - warmup) / max(total - warmup, 1), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Constant:
    """1 after a linear warm-up.

    Attributes:
      warmup: how long the multiplier rises linearly from 0, a length such as ``500 steps`` or ``1
        epochs``.
    """

    warmup: str = "0 steps"

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        return _warmup(step, train_length.steps(self.warmup, "optimizer.schedule.warmup"))


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine from 1 to ``final`` at the last step.

    Attributes:
      warmup: how long the multiplier rises linearly from 0, a length such as ``500 steps`` or ``1
        epochs``.
      final: multiplier of the last step.
    """

    warmup: str = "0 steps"
    final: float = 0.0

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        warmup = train_length.steps(self.warmup, "optimizer.schedule.warmup")
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * _progress(step, warmup, train_length.total_steps)))
        return _warmup(step, warmup) * (self.final + (1 - self.final) * cosine)


@dataclasses.dataclass(frozen=True)
class LinearDecay:
    """Linear warm-up, then a straight line from 1 to ``final`` at the last step.

    Attributes:
      warmup: how long the multiplier rises linearly from 0, a length such as ``500 steps`` or ``1
        epochs``.
      final: multiplier of the last step.
    """

    warmup: str = "0 steps"
    final: float = 0.0

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        warmup = train_length.steps(self.warmup, "optimizer.schedule.warmup")
        left = 1 - _progress(step, warmup, train_length.total_steps)
        return _warmup(step, warmup) * (self.final + (1 - self.final) * left)


@dataclasses.dataclass(frozen=True)
class Rsqrt:
    """Linear warm-up, reciprocal square root, linear cool-down to 0 (Zhai et al., 2022).

    After warm-up the multiplier is ``1 / sqrt(1 + (step - warmup) / timescale)``.

    Attributes:
      warmup: how long the multiplier rises linearly from 0, a length such as ``500 steps`` or ``1
        epochs``.
      timescale: how long until the multiplier is 1 / sqrt(2), a length.
      cooldown: how long the multiplier falls to 0 at the end, a length.
    """

    warmup: str = "0 steps"
    timescale: str = "10_000 steps"
    cooldown: str = "0 steps"

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        warmup = train_length.steps(self.warmup, "optimizer.schedule.warmup")
        timescale = train_length.steps(self.timescale, "optimizer.schedule.timescale")
        cooldown = train_length.steps(self.cooldown, "optimizer.schedule.cooldown")
        since = jnp.maximum(step - warmup, 0)
        rate = _warmup(step, warmup) / jnp.sqrt(1 + since / max(timescale, 1))
        return rate * _cooldown(step, cooldown, train_length.total_steps)


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay:
    """Warm-up, a constant plateau, and a linear cool-down to 0 at the end (WSD).

    Attributes:
      warmup: how long the multiplier rises linearly from 0, a length such as ``500 steps`` or ``1
        epochs``.
      cooldown: how long the multiplier falls to 0 at the end, a length.
    """

    warmup: str = "0 steps"
    cooldown: str = "0 steps"

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        warmup = train_length.steps(self.warmup, "optimizer.schedule.warmup")
        cooldown = train_length.steps(self.cooldown, "optimizer.schedule.cooldown")
        return _warmup(step, warmup) * _cooldown(step, cooldown, train_length.total_steps)


@dataclasses.dataclass(frozen=True)
class Staircase:
    """Linear warm-up; from the start of the run, times ``factor`` once for every ``every``.

    Attributes:
      factor: of a stair.
      every: how long a stair is, a length.
      warmup: how long the multiplier rises linearly from 0, a length such as ``500 steps`` or ``1
        epochs``.
    """

    factor: float = 0.1
    every: str = "30 epochs"
    warmup: str = "0 steps"

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        every = max(train_length.steps(self.every, "optimizer.schedule.every"), 1)
        warmup = train_length.steps(self.warmup, "optimizer.schedule.warmup")
        return _warmup(step, warmup) * jnp.power(self.factor, step // every)


@dataclasses.dataclass(frozen=True)
class Milestones:
    """Linear warm-up; times ``factor`` once at every milestone, as torch's MultiStepLR.

    Attributes:
      milestones: lengths from the start of the run, such as ``"50000 steps"``.
      factor: at each of them.
      warmup: length of the warm-up.
    """

    milestones: tuple[str, ...]
    factor: float = 0.1
    warmup: str = "0 steps"

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        field = "optimizer.schedule.milestones"
        steps = jnp.asarray([train_length.steps(each, field) for each in self.milestones])
        warmup = train_length.steps(self.warmup, "optimizer.schedule.warmup")
        return _warmup(step, warmup) * jnp.power(self.factor, jnp.sum(step >= steps))


def _cooldown(step: jax.Array, cooldown: int, total: int) -> jax.Array:
    return jnp.clip((total - step) / max(cooldown, 1), 0.0, 1.0)

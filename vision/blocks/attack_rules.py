"""Gradient-based attacks: FGSM, PGD, APGD, Carlini-Wagner; see ``vision.blocks.attack``.

Sources: Goodfellow et al. 2015 (FGSM), Madry et al. 2018 (PGD), Croce and Hein 2020 (APGD and the
DLR loss), Carlini and Wagner 2017.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.attack import AttackState, Memory, Norm, fooled, length, margins, project, rows
from vision.config.ranges import Finite, NonNegative, Positive, checked


@dataclasses.dataclass(frozen=True)
@checked
class PGD:
    """Projected gradient ascent on the cross-entropy with steps of constant length.

    Of all misclassified images of all restarts the one with the lowest margin is kept.

    Attributes:
      eps: radius of the ball; pixels are in 0..1.
      norm: of the ball, and of the direction: the sign of the gradient, or its unit vector.
      steps: per restart.
      step_size: as a share of ``eps``.
      random_start: begin at a random point of the ball, else at the image.
      restarts: number of starts.
      targeted: labels are target classes.
    """

    eps: NonNegative[Finite] = 8 / 255
    norm: Norm = "linf"
    steps: Positive[int] = 10
    step_size: Positive[float] = 0.25
    random_start: bool = True
    restarts: Positive[int] = 1
    targeted: bool = False

    uses_gradient: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.eps, self.norm)

    @property
    def moves(self) -> int:
        return self.steps

    @property
    def rounds(self) -> int:
        return self.restarts

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        if not self.random_start:
            return image, {}

        def draw(key: jax.Array) -> jax.Array:
            shape = image.shape[1:]
            if self.norm == "linf":
                return jax.random.uniform(key, shape, minval=-self.eps, maxval=self.eps)
            direction, radius = jax.random.split(key)
            noise = jax.random.normal(direction, shape)
            return noise / jnp.linalg.norm(noise) * jax.random.uniform(radius) * self.eps

        return jnp.clip(image + jax.vmap(draw)(keys), 0, 1), {}

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        return cross_entropy(logits, label, self.targeted)

    def score(self, margin: jax.Array, at: jax.Array, image: jax.Array) -> jax.Array:
        return margin

    def move(
        self,
        place: jax.Array,
        keys: jax.Array,
        state: AttackState,
        logits: jax.Array,
        gradient: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        step = self.step_size * self.eps * direction(self.norm, gradient)
        return project(self.norm, self.eps, state.image, state.at + step), {}


def fgsm(eps: float = 8 / 255, targeted: bool = False) -> PGD:
    """The fast gradient sign method: one step of length ``eps`` from the image."""
    return PGD(eps, steps=1, step_size=1.0, random_start=False, targeted=targeted)


@dataclasses.dataclass(frozen=True)
@checked
class APGD:
    """PGD with momentum and an adaptive step size, which is halved if progress stalls.

    At checkpoints, the first after 22 % of the steps, each next one after a time shorter by 3 %
    down to 6 %, an image whose loss rose in no more than 75 % of the steps, or whose best loss and
    step are those of the last checkpoint, goes back to its best point with half the step.

    ``dlr`` is the difference of logits ratio, -(z_y - max_{i!=y} z_i) / (z_(1) - z_(3)), which is
    invariant to the scale of the logits; for targeted attacks (z_t - max_{i!=t} z_i) / (z_(1) -
    (z_(3) + z_(4)) / 2), where the paper has the true class, which is not known here, in place
    of the largest other one. It needs 3 classes, targeted 4.

    Attributes:
      eps: radius of the ball; pixels are in 0..1.
      norm: of the ball.
      loss_type: ``ce`` or ``dlr``.
      steps: per restart.
      restarts: number of random starts.
      targeted: labels are target classes.
    """

    eps: NonNegative[Finite] = 8 / 255
    norm: Norm = "linf"
    loss_type: Literal["ce", "dlr"] = "ce"
    steps: Positive[int] = 100
    restarts: Positive[int] = 1
    targeted: bool = False

    uses_gradient: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_radius(self.eps, self.norm)

    @property
    def moves(self) -> int:
        return self.steps

    @property
    def rounds(self) -> int:
        return self.restarts

    def checkpoints(self) -> np.ndarray:
        """(steps + 1,) int: at a checkpoint the number of moves since the last one, else 0."""
        first, least, decrease = (max(int(share * self.steps), 1) for share in (0.22, 0.06, 0.03))
        windows, at, window = np.zeros(self.steps + 1, np.int32), first, first
        while at <= self.steps:
            windows[at] = window
            window = max(window - decrease, least)
            at += window
        return windows

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        def draw(key: jax.Array) -> jax.Array:
            if self.norm == "linf":
                noise = jax.random.uniform(key, image.shape[1:], minval=-1.0)
                return noise / jnp.abs(noise).max()
            noise = jax.random.normal(key, image.shape[1:])
            return noise / jnp.linalg.norm(noise)

        at = jnp.clip(image + self.eps * jax.vmap(draw)(keys), 0, 1)
        ones = jnp.ones(len(image), jnp.float32)
        return at, {
            "before": at,
            "held": at,
            "held_slope": jnp.zeros_like(at),
            "held_loss": -jnp.inf * ones,
            "last_loss": jnp.inf * ones,
            "checked_loss": jnp.inf * ones,
            "rises": jnp.zeros(len(image), jnp.int32),
            "halved": jnp.ones(len(image), bool),
            "size": 2 * self.eps * ones,
        }

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        if self.loss_type == "ce":
            return cross_entropy(logits, label, self.targeted)
        return difference_of_logits_ratio(logits, label, self.targeted)

    def score(self, margin: jax.Array, at: jax.Array, image: jax.Array) -> jax.Array:
        return margin

    def move(
        self,
        place: jax.Array,
        keys: jax.Array,
        state: AttackState,
        logits: jax.Array,
        gradient: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        memory, first = state.memory, place == 0
        loss = self.loss(logits, state.label)
        better = loss > memory["held_loss"]
        held = rows(better, state.at, memory["held"])
        held_gradient = rows(better, gradient, memory["held_slope"])
        held_loss = jnp.where(better, loss, memory["held_loss"])
        checked_loss = jnp.where(first, loss, memory["checked_loss"])
        rises = memory["rises"] + (loss > memory["last_loss"])
        window = jnp.asarray(self.checkpoints())[place]
        stuck = ~memory["halved"] & (checked_loss >= held_loss)
        halve = (window > 0) & ((rises <= 0.75 * window) | stuck)
        size = jnp.where(halve, memory["size"] / 2, memory["size"])
        at, gradient = rows(halve, held, state.at), rows(halve, held_gradient, gradient)
        step = size[:, None, None, None] * direction(self.norm, gradient)
        target = project(self.norm, self.eps, state.image, at + step)
        momentum = jnp.where(first, 1.0, 0.75)
        moved = at + momentum * (target - at) + (1 - momentum) * (at - memory["before"])
        return project(self.norm, self.eps, state.image, moved), {
            "before": at,
            "held": held,
            "held_slope": held_gradient,
            "held_loss": held_loss,
            "last_loss": loss,
            "checked_loss": jnp.where(window > 0, held_loss, checked_loss),
            "rises": jnp.where(window > 0, 0, rises),
            "halved": jnp.where(window > 0, halve, memory["halved"]),
            "size": size,
        }


@dataclasses.dataclass(frozen=True)
@checked
class CarliniWagner:
    """Minimises the Euclidean distance of an adversarial image, without a ball.

    Minimises |x' - x|^2 + c max(margin(x'), -confidence) over w in x' = (tanh w + 1) / 2 by Adam,
    where the margin is the logit of the true class minus the best other one (or that minus the
    target class). c is searched for every image separately: multiplied by ten until the attack
    succeeds, then by bisection. The nearest of all successful images is kept.

    Attributes:
      steps: of Adam per c.
      searches: number of c tried.
      learning_rate: of Adam.
      first_c: initial c of the search.
      confidence: margin by which another class must lead.
      targeted: labels are target classes.
    """

    steps: Positive[int] = 1000
    searches: Positive[int] = 9
    learning_rate: Positive[float] = 0.01
    first_c: Positive[float] = 1e-3
    confidence: NonNegative[float] = 0.0
    targeted: bool = False

    uses_gradient: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    @property
    def moves(self) -> int:
        return self.steps

    @property
    def rounds(self) -> int:
        return self.searches

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        ones = jnp.ones(len(image), jnp.float32)
        if memory:
            hit, c = memory["hit"], memory["c"]
            low = jnp.where(hit, memory["low"], jnp.maximum(memory["low"], c))
            high = jnp.where(hit, jnp.minimum(memory["high"], c), memory["high"])
            c = jnp.where(jnp.isfinite(high), (low + high) / 2, 10 * c)
        else:
            c, low, high = self.first_c * ones, 0 * ones, jnp.inf * ones
        # 0 and 1 are at infinity.
        w = jnp.arctanh((2 * image - 1) * (1 - 1e-6))
        return (jnp.tanh(w) + 1) / 2, {
            "w": w,
            "mean": jnp.zeros_like(image),
            "square": jnp.zeros_like(image),
            "c": c,
            "low": low,
            "high": high,
            "hit": jnp.zeros(len(image), bool),
        }

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.maximum(margins(logits, label, self.targeted), -self.confidence)

    def score(self, margin: jax.Array, at: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.where(margin <= -self.confidence, length(at - image).ravel(), jnp.inf)

    def move(
        self,
        place: jax.Array,
        keys: jax.Array,
        state: AttackState,
        logits: jax.Array,
        gradient: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        memory = state.memory
        enough = margins(logits, state.label, self.targeted) <= -self.confidence
        hit = memory["hit"] | (enough & fooled(logits, state.label, self.targeted))
        gradient = 2 * (state.at - state.image) + memory["c"][:, None, None, None] * gradient
        gradient = gradient * (1 - jnp.square(jnp.tanh(memory["w"]))) / 2
        mean = 0.9 * memory["mean"] + 0.1 * gradient
        square = 0.999 * memory["square"] + 0.001 * jnp.square(gradient)
        count = (place + 1).astype(jnp.float32)
        step = mean / (1 - 0.9**count) / (jnp.sqrt(square / (1 - 0.999**count)) + 1e-8)
        w = memory["w"] - self.learning_rate * step
        new_memory = {**memory, "w": w, "mean": mean, "square": square, "hit": hit}
        return (jnp.tanh(w) + 1) / 2, new_memory


def direction(norm: Norm, gradient: jax.Array) -> jax.Array:
    """The steepest ascent direction of length one in ``norm``; zero for a zero gradient."""
    if norm == "linf":
        return jnp.sign(gradient)
    # Scaled before it is squared, so that a small gradient does not underflow.
    scaled = gradient / jnp.maximum(jnp.abs(gradient).max((1, 2, 3), keepdims=True), 1e-37)
    return scaled / jnp.maximum(length(scaled), 1e-12)


def cross_entropy(logits: jax.Array, label: jax.Array, targeted: bool) -> jax.Array:
    """(B,) in nats, which an attack increases: its negative for targeted ones.

    log(1 + sum_{i!=y} exp(z_i - z_y)): without the difference 1 - p_y, which float32 rounds to
    zero or noise long before the other probabilities vanish.
    """
    label_logits = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]
    others = jnp.where(jax.nn.one_hot(label, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    loss = jax.nn.softplus(jax.nn.logsumexp(others, -1) - label_logits)
    return -loss if targeted else loss


def difference_of_logits_ratio(logits: jax.Array, label: jax.Array, targeted: bool) -> jax.Array:
    """(B,), which an attack increases; see ``APGD``.

    Raises:
      ValueError: fewer classes than it needs.
    """
    least = 4 if targeted else 3
    if logits.shape[-1] < least:
        raise ValueError(
            f"loss_type='dlr' needs {least} classes and the model has {logits.shape[-1]}: use 'ce'"
        )
    top = jax.lax.top_k(logits, least)[0]
    spread = top[:, 0] - ((top[:, 2] + top[:, 3]) / 2 if targeted else top[:, 2])
    return -margins(logits, label, targeted) / (spread + 1e-12)


def check_radius(eps: float, norm: Norm) -> None:
    """Raises ValueError for a radius that no two images in 0..1 are apart, such as 8 of 255."""
    if norm == "linf" and eps > 1:
        raise ValueError(
            f"eps={eps}: pixels are in 0..1, so no linf radius is above 1; on the scale of 0..255 "
            f"it is eps={eps:g} / 255"
        )

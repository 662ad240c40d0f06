"""Adversarial attacks on classifiers: the loop that runs them, and its state.

An attack is a frozen dataclass with an update rule of images, see ``Attack``; the rules are in
``attack_rules`` (PGD and FGSM, APGD, Carlini-Wagner) and in
``vision.evaluators.robustness.square``. Images are float32 (B, H, W,
C) in 0..1, ``logits_fn`` maps them to logits (B, K), each image independently of the others.
Everything is traceable::

    state = init(attack, jax.random.key(0), images, labels)
    state = run(attack, logits_fn, state, until=updates(attack))
    state.best, state.found

An attack may be interrupted after any update: the state is a tree of arrays, and continuing from it
gives bitwise the same result (under the same compilation of ``run``, whose ``until`` may be
traced). A network that draws is given as ``Randomised``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal, Protocol

import flax.struct
import jax
import jax.numpy as jnp

LogitsFn = Callable[[jax.Array], jax.Array]
Memory = dict[str, jax.Array]
Norm = Literal["linf", "l2"]

_LOOK = 0x100C  # folded into the keys of what a network draws


@dataclasses.dataclass(frozen=True)
class Randomised:
    """Logits of a network that draws, such as a smoothed one: anew in every update.

    Attributes:
      fn: from images (B, H, W, C) and a key for each (B,) to logits (B, K), each image by its own
        key and independently of the others.
    """

    fn: Callable[[jax.Array, jax.Array], jax.Array]


@flax.struct.dataclass
class AttackState:
    """State of an attack on a batch.

    Attributes:
      step: int32 scalar, the number of updates done.
      key: (B, 2) uint32, the random key of every image, so that its noise does not depend on the
        batch.
      image: (B, H, W, C) float32, the original images.
      label: (B,) int32, the true classes, or, for targeted attacks, the target classes.
      active: (B,) bool, images that are still attacked; the others are not changed.
      at: (B, H, W, C) float32, the images to evaluate in the next update.
      best: (B, H, W, C) float32, the best adversarial image so far; ``image`` where there is none.
      score: (B,) float32 of ``best``, lower is better; infinity where there is none.
      nonfinite: (B,) bool, whether logits or a gradient were ever not finite. Such images
        never count as adversarial, and such a gradient counts as zero.
      memory: state of the rule, arrays with one row per image.
    """

    step: jax.Array
    key: jax.Array
    image: jax.Array
    label: jax.Array
    active: jax.Array
    at: jax.Array
    best: jax.Array
    score: jax.Array
    nonfinite: jax.Array
    memory: Memory

    @property
    def found(self) -> jax.Array:
        """(B,) bool: whether there is an adversarial image."""
        return jnp.isfinite(self.score)


class Attack(Protocol):
    """Protocol of an update rule of images; a frozen dataclass.

    A round starts at some point and makes ``moves`` moves; every point is evaluated, so it takes
    ``moves + 1`` updates.

    Attributes:
      uses_gradient: whether it needs the gradient of ``loss``.
      settles: whether the attack of an image ends at its first adversarial example.
    """

    uses_gradient: ClassVar[bool]
    settles: ClassVar[bool]

    @property
    def targeted(self) -> bool:
        """Whether labels are target classes instead of true ones."""
        ...

    @property
    def moves(self) -> int:
        """Moves of a round."""
        ...

    @property
    def rounds(self) -> int:
        """Number of rounds: restarts, or steps of a search."""
        ...

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        """The starting point of a round; ``memory`` is the previous round's, empty in the first."""
        ...

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """(B,), whose gradient with respect to the image is passed to ``move``."""
        ...

    def score(self, margin: jax.Array, at: jax.Array, image: jax.Array) -> jax.Array:
        """(B,) of adversarial images, lower is better; infinity for those to reject."""
        ...

    def move(
        self,
        place: jax.Array,
        keys: jax.Array,
        state: AttackState,
        logits: jax.Array,
        gradient: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        """The next images to evaluate, from the logits and the gradient at ``state.at``.

        ``place`` is the number of moves made in this round.
        """
        ...


def updates(attack: Attack) -> int:
    """Number of updates of the whole attack."""
    return attack.rounds * (attack.moves + 1)


def init(
    attack: Attack,
    key: jax.Array,
    image: jax.Array,
    label: jax.Array,
    mask: jax.Array | None = None,
) -> AttackState:
    """The state before the first update.

    Args:
      key: one for all images, or one for each (B,).
      image: (B, H, W, C) float32 in 0..1.
      label: (B,) int: the true class, or the target class if ``attack.targeted``.
      mask: (B,) bool, the images to attack; None for all.

    Raises:
      ValueError: images or labels of another shape or dtype.
    """
    if image.ndim != 4 or image.dtype != jnp.float32:
        raise ValueError(
            f"images are {image.dtype} {image.shape}; an attack needs float32 (B, H, W, C), 0..1"
        )
    count = len(image)
    if label.shape != (count,) or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(
            f"labels are {label.dtype} {label.shape}; {count} images need int ({count},)"
        )
    if not key.ndim:
        key = _fold(jnp.broadcast_to(key, (count,)), jnp.arange(count))
    at, memory = attack.begin(key, image, {})
    active = jnp.ones(count, bool) if mask is None else mask.astype(bool)
    return AttackState(
        step=jnp.zeros([], jnp.int32),
        key=jax.random.key_data(key),
        image=image,
        label=label.astype(jnp.int32),
        active=active,
        at=rows(active, at, image),
        best=image,
        score=jnp.full(count, jnp.inf, jnp.float32),
        nonfinite=jnp.zeros(count, bool),
        memory=memory,
    )


def update(attack: Attack, logits_fn: LogitsFn | Randomised, state: AttackState) -> AttackState:
    """Evaluates ``state.at``, keeps improvements, and moves on."""
    place = state.step % (attack.moves + 1)
    if isinstance(logits_fn, Randomised):
        logits_fn = _drawing(logits_fn, state)
    logits, gradient = _look(attack, logits_fn, state, place)
    finite = jnp.isfinite(logits).all(-1)
    fools = fooled(logits, state.label, attack.targeted) & finite & state.active
    margin = margins(logits, state.label, attack.targeted)
    score = attack.score(margin, state.at, state.image)
    better = fools & (score < state.score)
    broken = state.active & ~(finite & jnp.isfinite(gradient).all((1, 2, 3)))
    looked = dataclasses.replace(
        state,
        step=state.step + 1,
        best=rows(better, state.at, state.best),
        score=jnp.where(better, score, state.score),
        nonfinite=state.nonfinite | broken,
        active=state.active & ~fools if attack.settles else state.active,
    )
    keys = _fold(jax.random.wrap_key_data(state.key), jnp.broadcast_to(looked.step, fools.shape))
    gradient = jnp.where(jnp.isfinite(gradient), gradient, 0)
    at, memory = attack.move(place, keys, looked, logits, gradient)
    if attack.rounds > 1:
        at, memory = jax.lax.cond(
            place == attack.moves,
            lambda: attack.begin(keys, state.image, memory),
            lambda: (at, memory),
        )
    return dataclasses.replace(looked, at=rows(looked.active, at, looked.at), memory=memory)


def run(
    attack: Attack,
    logits_fn: LogitsFn | Randomised,
    state: AttackState,
    until: int | jax.Array,
) -> AttackState:
    """Runs until ``until`` updates are done in all, or no image is active."""
    end = jnp.minimum(until, updates(attack))
    return jax.lax.while_loop(
        lambda state: (state.step < end) & state.active.any(),
        lambda state: update(attack, logits_fn, state),
        state,
    )


def ended(attack: Attack, state: AttackState) -> jax.Array:
    """Scalar bool: whether the attack is complete."""
    return (state.step >= updates(attack)) | ~state.active.any()


def fooled(logits: jax.Array, label: jax.Array, targeted: bool) -> jax.Array:
    """(B,) bool: the prediction is not the label, or, for targeted attacks, it is."""
    same = jnp.argmax(logits, -1) == label
    return same if targeted else ~same


def margins(logits: jax.Array, label: jax.Array, targeted: bool) -> jax.Array:
    """(B,): the logit of the true class minus the largest other one; negated if targeted."""
    label_logits = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]
    other_logits = jnp.where(jax.nn.one_hot(label, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    lead = label_logits - other_logits.max(-1)
    return -lead if targeted else lead


def rows(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """Rows of ``yes`` (B, ...) where ``condition`` (B,), of ``no`` elsewhere."""
    return jnp.where(condition.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def length(x: jax.Array) -> jax.Array:
    """Euclidean norm of every image, (B, 1, 1, 1)."""
    return jnp.sqrt(jnp.sum(jnp.square(x), (1, 2, 3), keepdims=True))


def project(norm: Norm, eps: float, image: jax.Array, moved: jax.Array) -> jax.Array:
    """Projection onto the ball around ``image``, then onto 0..1."""
    if norm == "linf":
        return jnp.clip(jnp.clip(moved, image - eps, image + eps), 0, 1)
    delta = moved - image
    return jnp.clip(image + delta * jnp.minimum(1, eps / jnp.maximum(length(delta), 1e-12)), 0, 1)


def _look(
    attack: Attack, logits_fn: LogitsFn, state: AttackState, place: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def forward(at: jax.Array) -> tuple[jax.Array, jax.Array]:
        return logits_fn(at).astype(jnp.float32), jnp.zeros_like(at)

    def forward_and_gradient(at: jax.Array) -> tuple[jax.Array, jax.Array]:
        def total_loss(at: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = logits_fn(at).astype(jnp.float32)
            return attack.loss(logits, state.label).sum(), logits

        (_, logits), gradient = jax.value_and_grad(total_loss, has_aux=True)(at)
        return logits, gradient

    if not attack.uses_gradient:
        return forward(state.at)
    # No move follows the last evaluation of a round.
    return jax.lax.cond(place == attack.moves, forward, forward_and_gradient, state.at)


def _drawing(randomised: Randomised, state: AttackState) -> LogitsFn:
    """With the keys of this update; those of ``move`` are other ones."""
    keys = jax.random.wrap_key_data(state.key)
    numbers = jnp.broadcast_to(state.step, state.label.shape)
    looking = _fold(_fold(keys, numbers), jnp.full(state.label.shape, _LOOK))
    return lambda at: randomised.fn(at, looking)


def _fold(keys: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in)(keys, numbers)

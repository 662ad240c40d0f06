"""Adversarial attacks on classifiers: the one loop that runs them, and all that it remembers.

An attack is a frozen dataclass with a rule for moving images, see ``Attack``; the rules are in
``attack_rules`` (PGD and FGSM, APGD, Carlini-Wagner) and ``square``. Images are float32
(B, H, W, C) in 0..1, ``logits_fn`` maps them to logits (B, K) and treats every image by itself.
Everything is traceable::

    state = init(attack, jax.random.key(0), images, labels)
    state = run(attack, logits_fn, state, until=updates(attack))
    state.best, state.found

An attack may stop after any update: the state is a tree of arrays, and going on from it gives what
would have come without the stop, bit for bit (under the same compilation of ``run``, whose
``until`` may be traced).
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


@flax.struct.dataclass
class AttackState:
    """An attack under way on a batch.

    Attributes:
      step: int32 scalar, the number of updates done.
      key: (B, 2) uint32, the random key of every image: an image meets the same chance in every
        batch.
      image: (B, H, W, C) float32, the images attacked.
      label: (B,) int32, the right classes, or, of targeted attacks, the wanted ones.
      active: (B,) bool, images that are attacked; the others are left alone.
      at: (B, H, W, C) float32, the images to look at in the next update.
      best: (B, H, W, C) float32, the best adversarial image found; ``image`` where there is none.
      score: (B,) float32 of ``best``, less is better; infinity where there is none.
      nonfinite: (B,) bool, whether logits or a gradient were ever not finite. Such logits fool
        nobody, and such a gradient counts as zero.
      memory: what the rule remembers, arrays with one row per image.
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
    """A rule for moving images; a frozen dataclass.

    A round begins somewhere and makes ``moves`` moves; every place that it comes to is looked at,
    so it takes ``moves + 1`` updates.

    Attributes:
      uses_gradient: whether it needs the gradient of ``loss``.
      settles: whether an image that is fooled is attacked no more.
    """

    uses_gradient: ClassVar[bool]
    settles: ClassVar[bool]

    @property
    def targeted(self) -> bool:
        """Whether labels are classes to be reached, not to be left."""
        ...

    @property
    def moves(self) -> int:
        """Moves of a round."""
        ...

    @property
    def rounds(self) -> int:
        """How often it begins anew: restarts, steps of a search."""
        ...

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        """Where a round begins; ``memory`` is that of the round before, empty in the first."""
        ...

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """(B,), whose gradient with respect to the image ``move`` gets."""
        ...

    def score(self, margin: jax.Array, at: jax.Array, image: jax.Array) -> jax.Array:
        """(B,) of images that fool, less is better; infinity for what is not good enough."""
        ...

    def move(
        self,
        place: jax.Array,
        keys: jax.Array,
        state: AttackState,
        logits: jax.Array,
        slope: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        """The next images to look at, from the logits and the gradient at ``state.at``.

        ``place`` is the number of moves that this round has made.
        """
        ...


def updates(attack: Attack) -> int:
    """How many updates the whole attack takes."""
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
      label: (B,) int: the right class, or the wanted one where ``attack.targeted``.
      mask: (B,) bool, the images to attack; None for all.

    Raises:
      ValueError: images or labels of another kind.
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


def update(attack: Attack, logits_fn: LogitsFn, state: AttackState) -> AttackState:
    """Looks at ``state.at``, keeps what is better, and moves on."""
    place = state.step % (attack.moves + 1)
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
    attack: Attack, logits_fn: LogitsFn, state: AttackState, until: int | jax.Array
) -> AttackState:
    """Goes on until so many updates are done, or no image is left to attack."""
    end = jnp.minimum(until, updates(attack))
    return jax.lax.while_loop(
        lambda state: (state.step < end) & state.active.any(),
        lambda state: update(attack, logits_fn, state),
        state,
    )


def ended(attack: Attack, state: AttackState) -> jax.Array:
    """Scalar bool: whether ``run`` has nothing left to do."""
    return (state.step >= updates(attack)) | ~state.active.any()


def fooled(logits: jax.Array, label: jax.Array, targeted: bool) -> jax.Array:
    """(B,) bool: the answer is not the label, or, of targeted attacks, it is."""
    same = jnp.argmax(logits, -1) == label
    return same if targeted else ~same


def margins(logits: jax.Array, label: jax.Array, targeted: bool) -> jax.Array:
    """(B,): by how much the right class leads, or the wanted one is behind."""
    label_logits = jnp.take_along_axis(logits, label[:, None], 1)[:, 0]
    other_logits = jnp.where(jax.nn.one_hot(label, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    lead = label_logits - other_logits.max(-1)
    return -lead if targeted else lead


def rows(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """Of two (B, ...) the rows of one where ``chosen`` (B,), of the other elsewhere."""
    return jnp.where(condition.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def length(x: jax.Array) -> jax.Array:
    """Euclidean length of every image, (B, 1, 1, 1)."""
    return jnp.sqrt(jnp.sum(jnp.square(x), (1, 2, 3), keepdims=True))


def project(norm: Norm, eps: float, image: jax.Array, moved: jax.Array) -> jax.Array:
    """The nearest point of the ball around ``image``, then of 0..1."""
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
    # From the last place of a round no move is made.
    return jax.lax.cond(place == attack.moves, forward, forward_and_gradient, state.at)


def _fold(keys: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in)(keys, numbers)

"""Optimizers from optax, with rules by regular expression for what is trained and how."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from vision.config.ranges import Ge, Gt, Le, Lt, NonNegative, Positive, Rate, Regex, checked
from vision.config.schema import ConfigError
from vision.parallel.mesh import path_of
from vision.train.schedule import Constant, Schedule, TrainLength
from vision.train.tower import Tower, layers_above

Tree = Any
Towers = Mapping[str, Tower]


def sgd(momentum: Rate = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """Heavy-ball or Nesterov momentum."""
    return optax.trace(decay=momentum, nesterov=nesterov) if momentum else optax.identity()


def adamw(
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: NonNegative[float] = 1e-8,
    moment_dtype: str | None = None,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015); decoupled decay comes from ``Optimizer.weight_decay``.

    ``moment_dtype="bfloat16"`` halves the memory of the first moment.
    """
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=moment_dtype)


def lion(
    b1: Rate = 0.9, b2: Rate = 0.99, moment_dtype: str | None = None
) -> optax.GradientTransformation:
    """Sign of an interpolated momentum (Chen et al., 2023)."""
    return optax.scale_by_lion(b1=b1, b2=b2, mu_dtype=moment_dtype)


def adafactor(
    momentum: float | None = 0.9,
    decay_rate: float = 0.8,
    b2_cap: float = 0.999,
    min_dim_size_to_factor: int = 32,
    clipping_threshold: float = 1.0,
    momentum_dtype: str = "bfloat16",
) -> optax.GradientTransformation:
    """Adafactor for vision (Shazeer and Stern, 2018; Zhai et al., 2022, section 3.4).

    Factored second moment whose decay ``1 - t ** -decay_rate`` is capped at ``b2_cap``, no
    relative step size, update clipping by block, and first-moment momentum in half precision.
    """

    def decay(step: Any, rate: Any) -> jax.Array:
        t = jnp.asarray(step + 1, jnp.float32)
        return jnp.minimum(b2_cap, 1.0 - t**-rate)

    parts = [
        optax.scale_by_factored_rms(
            decay_rate=decay_rate,
            min_dim_size_to_factor=min_dim_size_to_factor,
            decay_rate_fn=decay,
        ),
        optax.clip_by_block_rms(clipping_threshold),
    ]
    if momentum is not None:
        parts.append(optax.ema(momentum, debias=False, accumulator_dtype=momentum_dtype))
    return optax.chain(*parts)


def muon(
    momentum: float = 0.95,
    nesterov: bool = True,
    newton_schulz_steps: int = 5,
    rms: float = 0.2,
    matrices: str = r"block.*/kernel$",
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Momentum orthogonalised by Newton-Schulz (Jordan et al., 2024) for hidden matrices.

    Leaves whose path matches ``matrices`` and that have two or more dimensions get Muon, scaled to
    an update RMS of ``rms`` (Liu et al., 2025) so that AdamW's learning rate carries over; all
    others get Adam. Kernels stacked by a scan over layers are orthogonalised layer by layer;
    convolution kernels are matrices of (height x width x in, out).
    """

    def dimensions(params: Tree) -> Tree:
        def of(key_path: Any, leaf: Any) -> contrib.MuonDimensionNumbers:
            first = leaf.ndim - 2 if leaf.ndim <= 3 else 0
            return contrib.MuonDimensionNumbers(
                reduction_axis=tuple(range(first, leaf.ndim - 1)), output_axis=leaf.ndim - 1
            )

        return jax.tree_util.tree_map_with_path(of, params)

    def label(params: Tree) -> Tree:
        def of(key_path: Any, leaf: Any) -> str:
            hidden = leaf.ndim >= 2 and re.search(matrices, path_of(key_path))
            return "muon" if hidden else "adam"

        return jax.tree_util.tree_map_with_path(of, params)

    def scale(updates: Tree, params: Tree) -> Tree:
        # An orthogonal (m, n) matrix has an RMS of 1 / sqrt(max(m, n)).
        def one(x: jax.Array) -> jax.Array:
            fan_in = x.shape[-2] if x.ndim <= 3 else math.prod(x.shape[:-1])
            return x * (rms * math.sqrt(max(fan_in, x.shape[-1])))

        return jax.tree.map(one, updates)

    orthogonal = optax.chain(
        contrib.scale_by_muon(
            ns_steps=newton_schulz_steps,
            beta=momentum,
            nesterov=nesterov,
            weight_dimension_numbers=dimensions,
        ),
        optax.stateless(scale),
    )
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    return optax.partition({"muon": orthogonal, "adam": adam}, label)


@dataclasses.dataclass(frozen=True)
@checked
class ParameterRule:
    """How parameters whose path matches ``pattern`` (``re.search``) are trained.

    Attributes:
      pattern: searched in paths such as ``model/blocks/mlp/fc1/kernel``.
      learning_rate: multiplier; 0 freezes: no gradient, no optimizer state, no change.
      weight_decay: multiplier.
    """

    pattern: Regex
    learning_rate: NonNegative[float] = 1.0
    weight_decay: NonNegative[float] = 1.0


# Decay on weight matrices and convolutions, none on biases, norms, positions and tokens.
DECAY_KERNELS = (ParameterRule(r"/kernel$"), ParameterRule(r".*", weight_decay=0.0))


@dataclasses.dataclass(frozen=True)
@checked
class Optimizer:
    """An optax method with everything around it.

    ``update = -rate * rule.learning_rate * (method(clip(grads)) + decay * params)``, where ``rate``
    is ``learning_rate * schedule(step) * layer_decay ** layers above``.

    Attributes:
      method: gradient transformation without a learning rate: ``spec(adamw)``, ``spec(sgd)``,
        ``spec(lion)``, ``spec(adafactor)``, ``spec(muon)`` or any of optax's ``scale_by_*``.
      learning_rate: peak.
      schedule: multiplier over the run.
      weight_decay: its strength.
      decay: ``decoupled`` and multiplied by the learning rate (as in AdamW), or ``coupled``: added
        to the gradient before the method (as in torch's SGD).
      clip_norm: largest global norm of the trained parameters' gradient; None leaves it.
      layer_decay: what every layer below the head multiplies the learning rate by, for fine-tuning
        (Bao et al., BEiT, 2022): 1 treats all alike. Towers say how deep their layers lie: see
        ``vision.train.tower.Layered``.
      rules: the first rule that matches a parameter decides; every parameter needs one and every
        rule needs a parameter.
    """

    method: optax.GradientTransformation
    learning_rate: Annotated[float, Ge(0), Lt(math.inf)]
    schedule: Schedule = Constant()  # noqa: RUF009 - frozen
    weight_decay: NonNegative[float] = 0.0
    decay: Literal["decoupled", "coupled"] = "decoupled"
    clip_norm: Positive[float] | None = None
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    rules: tuple[ParameterRule, ...] = DECAY_KERNELS

    def rate(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        """The learning rate of update ``step`` (counted from 0) before any multipliers."""
        return self.learning_rate * self.schedule(step, train_length)

    def multipliers(self, params: Tree, towers: Towers | None = None) -> Tree:
        """What the learning rate of every leaf is multiplied by; 0 is frozen.

        Args:
          params: arrays or shapes of networks, by name.
          towers: those of them that are towers, by the same names: ``layer_decay`` asks them how
            deep a layer lies.

        Returns:
          A tree like ``params`` of floats, and of arrays (L,) where ``layer_decay`` tells apart
          the L layers of a stack.

        Raises:
          ConfigError: a tower that does not say how deep its layers lie.
        """
        rules = match_rules(params, self.rules)
        if self.layer_decay == 1:
            return jax.tree.map(lambda rule: rule.learning_rate, rules)

        def one(key_path: Any, rule: ParameterRule) -> float | np.ndarray:
            network, *path = path_of(key_path).split("/")
            above = np.array(layers_above((towers or {}).get(network), path))
            scale = rule.learning_rate * self.layer_decay**above
            return scale if above.ndim else float(scale)

        return jax.tree_util.tree_map_with_path(one, rules)

    def describe(self, params: Tree, towers: Towers | None = None) -> str:
        """What is trained of ``params``, in words; empty where all of it is, at one rate."""
        leaves, scales = jax.tree.leaves(params), jax.tree.leaves(self.multipliers(params, towers))
        pairs = list(zip(leaves, scales, strict=True))
        every = sum(math.prod(leaf.shape) for leaf in leaves)
        trained = sum(math.prod(leaf.shape) for leaf, scale in pairs if np.any(scale))
        used = sorted({float(x) for scale in scales for x in np.ravel(scale) if x})
        parts = [f"{trained:,} of {every:,} parameters trained"] if trained < every else []
        if len(used) > 1:
            parts.append(f"learning rate times {used[0]:.3g} to {used[-1]:.3g}")
        return ", ".join(parts)

    def table(self, params: Tree, towers: Towers | None = None) -> list[tuple[str, str, str]]:
        """Rows of multiplier, number of parameters and their first path, from large to small."""
        groups: dict[float, tuple[int, str]] = {}
        paths = [path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
        leaves, scales = jax.tree.leaves(params), jax.tree.leaves(self.multipliers(params, towers))
        for path, leaf, scale in zip(paths, leaves, scales, strict=True):
            values = np.ravel(scale)
            for i, value in enumerate(values.tolist()):
                where = f"{path}[{i}]" if len(values) > 1 else path
                count, first = groups.get(value, (0, where))
                groups[value] = (count + math.prod(leaf.shape) // len(values), first)
        return [
            (f"{value:.4g}" if value else "frozen", f"{count:,}", first)
            for value, (count, first) in sorted(groups.items(), reverse=True)
        ]

    def build(
        self, params: Tree, train_length: TrainLength, towers: Towers | None = None
    ) -> optax.GradientTransformation:
        """The transformation; ``params`` and ``towers`` as in ``multipliers``."""
        rules = match_rules(params, self.rules)
        scales = self.multipliers(params, towers)
        frozen = jax.tree.map(lambda rule: rule.learning_rate == 0, rules)
        labels = jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", frozen)
        parts = []
        if self.clip_norm is not None:
            parts.append(optax.clip_by_global_norm(self.clip_norm))
        parts.append(self.method)
        if self.decay == "coupled":
            parts.insert(-1, _per_parameter_decay(self.weight_decay, rules))
        method = optax.partition(
            {"trained": optax.chain(*parts), "frozen": optax.set_to_zero()}, labels
        )
        decoupled = self.weight_decay if self.decay == "decoupled" else 0.0

        def finish(updates: Tree, params: Tree, rate: jax.Array) -> Tree:
            def scaled(
                rule: ParameterRule, scale: Any, update: jax.Array, param: jax.Array
            ) -> jax.Array:
                if rule.learning_rate == 0:
                    return jnp.zeros_like(param)
                decay = decoupled * rule.weight_decay
                update = update + decay * param if decay else update
                if np.ndim(scale):
                    layers = (-1,) + (1,) * (param.ndim - 1)
                    scale = jnp.asarray(scale, jnp.float32).reshape(layers)
                return (-rate * scale * update).astype(param.dtype)

            return jax.tree.map(scaled, rules, scales, updates, params)

        def init(params: Tree) -> Tree:
            return {"method": method.init(params), "count": jnp.zeros([], jnp.int32)}

        def update(grads: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
            updates, inner = method.update(grads, state["method"], params)
            updates = finish(updates, params, self.rate(state["count"], train_length))
            return updates, {"method": inner, "count": state["count"] + 1}

        return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _per_parameter_decay(weight_decay: float, rules: Tree) -> optax.GradientTransformation:
    def update(updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        def decayed(grad: Any, rule: ParameterRule, param: Any) -> Any:
            if isinstance(grad, optax.MaskedNode):
                return grad
            return grad + weight_decay * rule.weight_decay * param

        masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
        return jax.tree.map(decayed, updates, rules, params, is_leaf=masked), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)  # pyright: ignore[reportArgumentType]


def match_rules(params: Tree, rules: tuple[ParameterRule, ...]) -> Tree:
    """A tree like ``params`` that holds the rule of every leaf.

    Raises:
      ConfigError: a parameter without a rule, or a rule without a parameter.
    """
    used: set[ParameterRule] = set()
    unmatched: list[str] = []

    def first_match(key_path: Any, leaf: Any) -> ParameterRule:
        path = path_of(key_path)
        for rule in rules:
            if re.search(rule.pattern, path):
                used.add(rule)
                return rule
        unmatched.append(path)
        return ParameterRule("")

    tree = jax.tree_util.tree_map_with_path(first_match, params)
    if unmatched:
        raise ConfigError(
            f"config.optimizer.rules: {len(unmatched)} parameter(s) match no rule, first "
            f"{unmatched[0]!r}; end the rules with spec(ParameterRule, pattern='.*')"
        )
    for rule in rules:
        if rule not in used:
            paths = [path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
            raise ConfigError(
                f"config.optimizer.rules: {rule.pattern!r} decides for no parameter; "
                f"parameters look like {', '.join(paths[:3])}"
            )
    return tree


def trained_norm(grads: Tree, rules: tuple[ParameterRule, ...]) -> jax.Array:
    """Global norm over the gradients of parameters that are trained."""
    matched = jax.tree.leaves(match_rules(grads, rules))
    pairs = zip(matched, jax.tree.leaves(grads), strict=True)
    return optax.tree.norm([grad for rule, grad in pairs if rule.learning_rate != 0])


@dataclasses.dataclass(frozen=True)
@checked
class Ema:
    """Exponential moving average of parameters and BatchNorm statistics, for evaluation.

    Attributes:
      decay: per step, in [0, 1).
      warmup: a smaller decay at first, ``min(decay, (1 + t) / (10 + t))``, t the step.
    """

    decay: Rate = 0.9999
    warmup: bool = True

    def init(self, params: Tree, model_state: Tree) -> Tree:
        # A copy: an average that aliased its parameter would be donated twice.
        return jax.tree.map(jnp.copy, {"params": params, "model_state": model_state})

    def update(self, average: Tree, params: Tree, model_state: Tree, step: jax.Array) -> Tree:
        t = step.astype(jnp.float32)
        decay = jnp.minimum(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        new = {"params": params, "model_state": model_state}
        return jax.tree.map(lambda old, x: old + (1 - decay) * (x - old), average, new)

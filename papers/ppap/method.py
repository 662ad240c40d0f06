"""Practical plug-and-play: a classifier of clean images becomes one for every range of noise.

To lead a diffusion model to a class takes the gradient of log p(y | x_t), and a classifier that
never saw noise has none worth following. So the T steps are cut into N equal ranges, and each gets
an expert: the classifier with its kernels frozen, a low-rank update on its convolutions, and norms
and biases of its own. The experts learn from the classifier itself, on images that the diffusion
model made without a class; no data is needed. With p the classifier and q_n expert n,

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e,   x_0 generated, t ~ U(range n)
    L_n = KL( softmax(logits_p(x_0) / 0.25) || softmax(logits_{q_n}(x_t)) )

and sampling at step t is guided by q_n of the range of t, with scale s = 7.5:

    e' = e - sqrt(1 - abar_t) s d/dx log q_n(y | x_t)

The stages are the diffusion model (``Denoise``), the classifier, images
(``papers.ppap.sampled.Sampled``), this objective from the classifier's weights, and guided
images. One expert is a classifier fine-tuned to all noise; at the start every expert is the
classifier, bit for bit.

Go et al., Towards Practical Plug-and-Play Diffusion Models, 2023. Headline: ImageNet at 256 pixels
without labels, led by a ResNet-50: FID and IS clearly better than by the classifier as it is or by
one fine-tuned to all noise (numbers unconfirmed). Differences: all experts learn in one step, each
from its share of the batch, where the authors train one after another for a share of the steps;
BatchNorm keeps its running statistics. The depth and segmentation networks are not here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vision.blocks.adapters import Lora, init_adapters, merge_adapters
from vision.blocks.diffusion import Diffusion
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged

Tree = Any
EXPERTS = "experts"
CONVOLUTIONS = Lora(pattern=r"conv[^/]*/kernel$", rank=16, alpha=8.0)


@dataclasses.dataclass(frozen=True)
class NoiseExperts(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float, -1..1; B is a multiple of N.

    The classifier comes through ``init_from``. What is learned is ``experts``, N stacked trees::

        Rule("experts/"), Rule(".*", learning_rate=0)

    Attributes:
      model: the classifier; filled in from ``config.model``.
      diffusion: as the model that is to be led was trained.
      experts: N.
      adapters: of its kernels.
      temperature: of the classifier's logits.
    """

    diffusion: Diffusion = Diffusion()  # noqa: RUF009 - frozen
    experts: int = 5
    adapters: tuple[Lora, ...] = (CONVOLUTIONS,)
    temperature: float = 0.25

    def __post_init__(self) -> None:
        if not 1 <= self.experts <= self.diffusion.steps or self.temperature <= 0:
            raise ValueError(
                f"experts={self.experts}, temperature={self.temperature}: 1 to "
                f"{self.diffusion.steps} experts, and a positive temperature"
            )

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_experts = jax.random.split(key)
        variables = super().init(k_model, batch)
        params = variables.params["model"]
        added = jax.vmap(lambda k: init_adapters(self.adapters, params, k))(
            jax.random.split(k_experts, self.experts)
        )
        return variables.merge(params={EXPERTS: {"adapters": added, "own": self._copies(params)}})

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        """Every expert starts with the norms and biases of the classifier that was read."""
        own = self._copies(variables.params["model"])
        return variables.merge(params={EXPERTS: {**variables.params[EXPERTS], "own": own}})

    def _copies(self, params: Tree) -> Tree:
        return jax.tree.map(lambda x: jnp.stack([x] * self.experts), apart(params))

    def range_of(self, time: jax.Array) -> jax.Array:
        """Which expert is for a step, 0..N - 1."""
        return time * self.experts // self.diffusion.steps

    def weights(self, params: dict[str, Tree], learned: Tree) -> Tree:
        """Parameters of the plain tower that one expert is."""
        base = jax.lax.stop_gradient(params["model"])
        return put(merge_adapters(self.adapters, base, learned["adapters"]), learned["own"])

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        image, count = batch["image"], self.experts
        if len(image) % count:
            raise ValueError(f"config.data.batch_size={len(image)}: a multiple of experts={count}")

        def logits(weights: Tree, x: jax.Array) -> jax.Array:
            out, _ = apply(self.model, variables, x, ctx, params=weights, train=False)
            return out["logits"].astype(jnp.float32)

        clean = logits(jax.lax.stop_gradient(variables.params["model"]), image)
        target = jax.lax.stop_gradient(jax.nn.log_softmax(clean / self.temperature))
        steps, number = self.diffusion.steps, jnp.arange(count)
        low, high = (-(-(number + i) * steps // count) for i in (0, 1))
        shape = (count, len(image) // count)
        time = jax.random.randint(ctx.rng("time"), shape, low[:, None], high[:, None])
        noise = jax.random.normal(ctx.rng("noise"), image.shape, image.dtype)
        seen = self.diffusion.noised(image, time.reshape(-1), noise)

        def one(part: tuple[Tree, jax.Array]) -> jax.Array:
            learned, x = part
            return logits(self.weights(variables.params, learned), x)

        # One after the other: convolutions by several kernels at once are grouped, and slow.
        shared = seen.reshape(count, -1, *image.shape[1:])
        said = jax.lax.map(one, (variables.params[EXPERTS], shared)).reshape(len(image), -1)
        losses = jnp.sum(jnp.exp(target) * (target - jax.nn.log_softmax(said)), -1)
        agreed = jnp.argmax(said, -1) == jnp.argmax(clean, -1)
        return averaged(losses, batch["_mask"], agreement=agreed)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """What ``Classify`` gives, by the expert of ``batch["time"]``, int (); without one, 0.

        Raises:
          ValueError: a step per row.
        """
        time = jnp.asarray(batch.get("time", 0), jnp.int32)
        if time.ndim:
            raise ValueError(f"time is {time.shape}: experts answer for one step at a time, ()")
        place = self.range_of(time)
        learned = jax.tree.map(lambda x: x[place], variables.params[EXPERTS])
        expert = self.weights(variables.params, learned)
        return super().predict(variables.merge(params={"model": expert}), batch, ctx)


def apart(params: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested dicts that are no kernels: norms and biases."""
    kept = {}
    for name, x in params.items():
        inner = apart(x) if isinstance(x, Mapping) else x
        if name != "kernel" and not (isinstance(inner, dict) and not inner):
            kept[name] = inner
    return kept


def put(params: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with the leaves that ``own`` has in their places."""
    return {
        name: put(x, own.get(name, {})) if isinstance(x, Mapping) else own.get(name, x)
        for name, x in params.items()
    }

"""PPAP: classifier guidance of diffusion models by experts for ranges of noise, trained data-free.

Guiding a diffusion model to a class needs the gradient of log p(y | x_t), which is useless for a
classifier of clean images. The T steps are divided into N equal ranges, each with an expert: the
classifier with frozen kernels, a low-rank update of its convolutions, and separate norms and
biases, but for its head, which all share. The experts are distilled from the classifier on images
sampled unconditionally from the diffusion model, without any data. With p the classifier and q_n
expert n,

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e,   x_0 generated, t ~ U(range n)
    L_n = KL( softmax(logits_p(x_0) / 0.25) || softmax(logits_{q_n}(x_t)) )

and sampling at step t is guided by q_n of the range of t, with scale s = 7.5:

    e' = e - sqrt(1 - abar_t) s d/dx log q_n(y | x_t)

The stages are the diffusion model (``Denoise``), the classifier, unconditional samples
(``papers.ppap.sampled.Sampled``), this objective from the classifier's weights, and guided
samples. One expert is a classifier fine-tuned to all noise levels; initially every expert is equal
to the classifier, bit for bit.

Go et al., Towards Practical Plug-and-Play Diffusion Models, 2023. Headline: ImageNet at 256 pixels
without labels, guided by a ResNet-50: FID and IS clearly better than with the original classifier
or one fine-tuned to all noise levels (numbers unconfirmed). Differences: all experts are trained in
one step, each on its share of the batch, where the authors train them one after another for a share
of the steps; BatchNorm keeps its running statistics. Not here: depth and segmentation networks.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from papers.ppap.leaves import non_kernels, replaced
from vision.blocks.adapters import Lora, init_adapters, merge_adapters
from vision.blocks.diffusion import Diffusion
from vision.config.ranges import Positive, checked
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged

Tree = Any
EXPERTS = "experts"
CONVOLUTIONS = Lora(pattern=r"conv[^/]*/kernel$", rank=16, alpha=8.0)


@dataclasses.dataclass(frozen=True)
@checked
class NoiseExperts(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float, -1..1; B is a multiple of N.

    The classifier is loaded by ``init_from``. Only ``experts``, N stacked trees, is trained::

        ParameterRule("experts/"), ParameterRule(".*", learning_rate=0)

    Attributes:
      model: the classifier; filled in from ``config.model``.
      diffusion: schedule of the diffusion model that is guided.
      experts: N.
      adapters: low-rank updates of the kernels.
      temperature: of the classifier's logits.
    """

    diffusion: Diffusion = Diffusion()  # noqa: RUF009 - frozen
    experts: Positive[int] = 5
    adapters: tuple[Lora, ...] = (CONVOLUTIONS,)
    temperature: Positive[float] = 0.25

    def __post_init__(self) -> None:
        if self.experts > self.diffusion.steps:
            raise ValueError(
                f"experts={self.experts}, but there are {self.diffusion.steps} noise levels"
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
        """Every expert starts with the norms and biases of the loaded classifier."""
        copies = self._copies(variables.params["model"])
        return variables.merge(params={EXPERTS: {**variables.params[EXPERTS], "own": copies}})

    def _copies(self, params: Tree) -> Tree:
        # The head stays the classifier's, its bias too, as in the authors' code.
        own = non_kernels({name: x for name, x in params.items() if name != "head"})
        return jax.tree.map(lambda x: jnp.stack([x] * self.experts), own)

    def range_of(self, time: jax.Array) -> jax.Array:
        """Index of the expert of a step, 0..N - 1."""
        return time * self.experts // self.diffusion.steps

    def weights(self, params: dict[str, Tree], expert: Tree) -> Tree:
        """Parameters of the tower of one expert: adapters merged, norms and biases replaced."""
        base = jax.lax.stop_gradient(params["model"])
        return replaced(merge_adapters(self.adapters, base, expert["adapters"]), expert["own"])

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
        noised = self.diffusion.noised(image, time.reshape(-1), noise)

        def expert_logits(part: tuple[Tree, jax.Array]) -> jax.Array:
            expert, x = part
            return logits(self.weights(variables.params, expert), x)

        # A loop, since batching over kernels makes grouped convolutions, which are slow.
        per_expert = noised.reshape(count, -1, *image.shape[1:])
        student = jax.lax.map(expert_logits, (variables.params[EXPERTS], per_expert)).reshape(
            len(image), -1
        )
        losses = jnp.sum(jnp.exp(target) * (target - jax.nn.log_softmax(student)), -1)
        agreement = jnp.argmax(student, -1) == jnp.argmax(clean, -1)
        return averaged(losses, batch["_mask"], agreement=agreement)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The outputs of ``Classify`` by the expert of ``batch["time"]``, int (), 0 by default.

        Raises:
          ValueError: one time per row.
        """
        time = jnp.asarray(batch.get("time", 0), jnp.int32)
        if time.ndim:
            raise ValueError(f"time is {time.shape}: experts predict for one step at a time, ()")
        index = self.range_of(time)
        expert = jax.tree.map(lambda x: x[index], variables.params[EXPERTS])
        weights = self.weights(variables.params, expert)
        return super().predict(variables.merge(params={"model": weights}), batch, ctx)

"""Self-distillation with multi-crop and masked patches: DINO and iBOT, as in DINOv2.

The input of the student are crops of an image, some with masked patches; that of the teacher, the
moving average of the student, the large crops without masks. Both assign a view, and every patch,
to prototypes, and the student learns to predict the teacher's assignments:

    view   CE(sinkhorn(teacher(large crop)), student(another crop)), mean over pairs of crops
    patch  CE(sinkhorn(teacher(patch)), student(masked patch)), mean over a crop's masked patches
    koleo  -log distance to the nearest other image, of the student's embeddings of a large crop

Sinkhorn balances the assignments over the prototypes within the batch; it and the distances couple
the rows of a batch. Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021;
Zhou et al., iBOT, 2022; Oquab et al., DINOv2, 2024.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vision.blocks.ema import cosine, ema_update
from vision.config.ranges import Fraction, Ge, NonEmpty, NonNegative, checked
from vision.models.projector import Projector
from vision.objectives.prototypes import cosines, koleo, sinkhorn
from vision.train.objective import Aux, Batch, BatchCoupled, Context, Variables, apply, masked_mean
from vision.train.tower import Tap, forward, initialise

Tree = Any
GLOBAL, LOCAL = "image/global", "image/local"


@dataclasses.dataclass(frozen=True)
@checked
class SelfDistill(BatchCoupled):
    """DINOv2's loss, see the module.

    Training batches have ``image/global`` (B, G, H, W, C) and, with small crops,
    ``image/local`` (B, L, h, w, C), as ``vision.data.ops.MultiCrop`` makes them, floats; with a
    patch loss also ``mask`` (B, G, rows, columns) bool, True where a patch is masked. Other
    batches have ``image`` (B, H, W, C). The pixels of a masked patch are zero, and a learned vector
    is added to its token at the site ``stem``.

    Attributes:
      model: a tower whose ``out`` has ``map``, and at ``stem`` its tokens, patches last; filled in
        from ``config.model``.
      widths: of the projection layers before the prototypes, separate for views and patches.
      prototypes: number of prototypes of views, and of patches.
      patch_weight: weight of the patch loss; 0 for none, and nothing is masked.
      koleo_weight: weight of the koleo loss, summed over large crops.
      most_hidden: maximum share of a crop's patches in the patch loss.
      student_temperature: of the student's softmax over cosines.
      teacher_temperature: of the teacher's softmax at the start and after ``warmup``, linear
        between.
      warmup: share of the run in which the teacher's temperature changes.
      momentum: of the teacher at the start; increases to 1 by half a cosine.
      iterations: of Sinkhorn.
    """

    widths: NonEmpty[tuple[int, ...]] = (2048, 2048, 256)
    prototypes: Annotated[int, Ge(2)] = 65536
    patch_weight: float = 1.0
    koleo_weight: float = 0.1
    most_hidden: Fraction = 0.5
    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    warmup: Fraction = 0.3
    momentum: Fraction = 0.994
    iterations: NonNegative[int] = 3

    def __post_init__(self) -> None:
        if min(self.student_temperature, *self.teacher_temperature) <= 0:
            raise ValueError("student_temperature and teacher_temperature: positive")

    @property
    def head(self) -> Projector:
        """The projection between the tower and the prototypes."""
        return Projector(self.widths, activation="gelu")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, *keys = jax.random.split(key, 3)
        image = batch[GLOBAL][:, 0]
        params, model_state = initialise(self.model, k_model, image)
        embedding, out = jax.eval_shape(
            lambda: forward(self.model, params, model_state, image, train=False)[:2]
        )
        networks = {"model": params}
        outputs = (
            {"view": embedding, "patch": out["map"]} if self.patch_weight else {"view": embedding}
        )
        for (name, shape), head_key in zip(outputs.items(), keys, strict=False):
            k_head, k_kernel = jax.random.split(head_key)
            head, _ = initialise(self.head, k_head, jnp.zeros((1, shape.shape[-1])))
            kernel = 0.02 * jax.random.normal(k_kernel, (self.widths[-1], self.prototypes))
            networks[f"{name}_head"] = {"head": head, "prototypes": {"kernel": kernel}}
        if self.patch_weight:
            networks["hidden"] = {"token": jnp.zeros(out["stem"].shape[-1])}
        return Variables(networks, {"model": model_state}, {"teacher": _teacher(networks)})

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        """The teacher starts as a copy of the student, which ``init_from`` may have loaded."""
        return variables.merge(extra_state={"teacher": _teacher(variables.params)})

    def encode(
        self, variables: Variables, batch: Batch, ctx: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        """By student and teacher: ``view`` (B, crops, D) and ``patch`` (B, G, M, D) before the
        prototypes, and ``embedding`` (B, G, C) of the student."""
        mask, params = self._mask(batch), variables.params
        teacher = jax.lax.stop_gradient(variables.extra_state["teacher"])
        eval_ctx = dataclasses.replace(ctx, train=False)
        teacher_outputs = self._look(variables.merge(params=teacher), batch[GLOBAL], eval_ctx)
        embedding, patches, state = self._look(variables, batch[GLOBAL], ctx, mask)
        views = [embedding]
        if LOCAL in batch:
            key = jax.random.fold_in(ctx.rng("dropout"), 1) if ctx.key is not None else None
            student = variables.merge(model_state=state)
            local, _, state = self._look(student, batch[LOCAL], ctx, key=key)
            views.append(local)
        embeddings = {
            "student/view": self._head(params["view_head"], jnp.concatenate(views, 1)),
            "teacher/view": self._head(teacher["view_head"], teacher_outputs[0]),
            "embedding": embedding.astype(jnp.float32),
        }
        if mask is not None:
            places, _ = self._places(mask)
            for name, network, all_patches in (
                ("student", params, patches),
                ("teacher", teacher, teacher_outputs[1]),
            ):
                chosen = jnp.take_along_axis(all_patches, places[..., None], axis=2)
                embeddings[f"{name}/patch"] = self._head(network["patch_head"], chosen)
        return embeddings, Aux(model_state=state)

    def loss_from_embeddings(
        self, variables: Variables, embeddings: dict[str, jax.Array], batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        valid = batch["_mask"]
        target, log_probabilities = self._assigned(
            variables, embeddings, "view", valid[:, None], ctx
        )
        cross_entropies = -jnp.einsum("btk,bsk->bts", target, log_probabilities)
        large, crops = target.shape[1], log_probabilities.shape[1]
        other = ~jnp.eye(large, crops, dtype=bool)
        views = jnp.sum(cross_entropies * other, (1, 2)) / max(large * crops - large, 1)
        metrics = {"view_loss": masked_mean(views, valid)}
        spread = [koleo(embeddings["embedding"][:, g], valid) for g in range(large)]
        metrics["koleo"] = sum(spread[1:], spread[0])
        loss = metrics["view_loss"] + self.koleo_weight * metrics["koleo"]
        if (mask := self._mask(batch)) is not None:
            _, hidden = self._places(mask)
            hidden = hidden & valid[:, None, None]
            target, log_probabilities = self._assigned(variables, embeddings, "patch", hidden, ctx)
            patch_losses = -jnp.sum(target * log_probabilities, -1) * hidden
            patches = jnp.sum(patch_losses / jnp.maximum(hidden.sum(2, keepdims=True), 1), 2).mean(
                1
            )
            metrics["patch_loss"] = masked_mean(patches, valid)
            loss = loss + self.patch_weight * metrics["patch_loss"]
        return loss, Aux(metrics)

    def _look(
        self,
        variables: Variables,
        image: jax.Array,
        ctx: Context,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, dict[str, Tree]]:
        """Embeddings (B, V, D) and patches (B, V, N, C) of crops (B, V, H, W, C), and the state."""
        rows, crops = image.shape[:2]
        image = image.reshape(rows * crops, *image.shape[2:])
        tap = None
        if mask is not None:
            hidden = mask.reshape(-1, *mask.shape[2:])
            side = image.shape[1] // hidden.shape[1], image.shape[2] // hidden.shape[2]
            pixels = jnp.repeat(jnp.repeat(hidden, side[0], 1), side[1], 2)
            image = jnp.where(pixels[..., None], 0.0, image)
            hidden_flat, token = (
                hidden.reshape(len(hidden), -1, 1),
                variables.params["hidden"]["token"],
            )

            def replace(_: str, x: jax.Array) -> jax.Array:
                # A patch of zeros has only bias and position; the token marks it as masked.
                first_patch = x.shape[1] - hidden_flat.shape[1]
                return x.at[:, first_patch:].add((hidden_flat * token).astype(x.dtype))

            tap = Tap(replace, sites="stem")
        out, state = apply(self.model, variables, image, ctx, key=key, tap=tap)
        patches = out["map"].reshape(rows, crops, -1, out["map"].shape[-1])
        return out["embedding"].reshape(rows, crops, -1), patches, state

    def _head(self, params: Tree, x: jax.Array) -> jax.Array:
        flat = x.reshape(-1, x.shape[-1])
        projected, _, _ = forward(self.head, params["head"], {}, flat, train=False)
        return projected.reshape(*x.shape[:-1], -1).astype(jnp.float32)

    def _assigned(
        self,
        variables: Variables,
        embeddings: dict[str, jax.Array],
        name: str,
        valid: jax.Array,
        ctx: Context,
    ) -> tuple[jax.Array, jax.Array]:
        """The teacher's distributions and the student's logarithms, (..., K) over prototypes."""
        student, teacher = (
            params[f"{name}_head"]["prototypes"]["kernel"]
            for params in (variables.params, variables.extra_state["teacher"])
        )
        scores = cosines(embeddings[f"teacher/{name}"], teacher)
        rows = jnp.broadcast_to(valid, scores.shape[:-1]).reshape(-1)
        low, high = self.teacher_temperature
        progress = jnp.clip(ctx.step / max(self.warmup * ctx.total_steps, 1), 0.0, 1.0)
        flat = scores.reshape(-1, scores.shape[-1])
        target = sinkhorn(flat, rows, low + (high - low) * progress, self.iterations)
        student_cosines = cosines(embeddings[f"student/{name}"], student)
        log_probabilities = jax.nn.log_softmax(student_cosines / self.student_temperature)
        return jax.lax.stop_gradient(target.reshape(scores.shape)), log_probabilities

    def _mask(self, batch: Batch) -> jax.Array | None:
        if not self.patch_weight:
            return None
        if "mask" not in batch or batch["mask"].ndim != 4:
            raise ValueError(
                f"patch_weight={self.patch_weight} needs batch['mask'] (B, G, rows, columns), as "
                "vision.data.ops.BlockPatchMasks makes it"
            )
        return batch["mask"]

    def _places(self, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Indices (B, G, M) of masked patches, in raster order, and which of them are masked."""
        flat = mask.reshape(*mask.shape[:2], -1)
        max_hidden = max(1, round(self.most_hidden * flat.shape[-1]))
        places = jnp.argsort(~flat, axis=-1, stable=True)[..., :max_hidden]
        return places, jnp.take_along_axis(flat, places, axis=-1)

    def after_update(self, variables: Variables, aux: Aux, ctx: Context) -> dict[str, Tree]:
        momentum = cosine(self.momentum, 1.0, ctx.step, ctx.total_steps)
        teacher, student = variables.extra_state["teacher"], _teacher_networks(variables.params)
        return {**variables.extra_state, "teacher": ema_update(teacher, student, momentum)}

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The teacher's ``embedding`` (B, D) and ``map`` (B, h, w, C), float32."""
        teacher = variables.extra_state["teacher"]["model"]
        out, _ = apply(self.model, variables, batch["image"], ctx, params=teacher)
        return {name: out[name].astype(jnp.float32) for name in ("embedding", "map")}


def _teacher_networks(params: Mapping[str, Tree]) -> dict[str, Tree]:
    """The student's networks that the teacher has too: all but the mask token."""
    return {name: tree for name, tree in params.items() if name != "hidden"}


def _teacher(params: Mapping[str, Tree]) -> dict[str, Tree]:
    return jax.tree.map(jnp.copy, _teacher_networks(params))

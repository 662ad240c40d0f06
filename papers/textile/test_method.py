"""TexTile: what tiles scores alike however it is rolled, a cut breaks it, gamma 0 is ConvNeXt."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.textile.method import Cut, Rolled, TellTiles, Tileability, mend, seam
from papers.textile.tower import AttentiveConvNeXt, Laid, ResidualLinearAttention, lay
from papers.textile.wallpaper import wallpapers
from tests.evaluators.linear_dual import data
from tests.models.tower_cases import quick_jit, random_variables
from vision.evaluate.evaluator import evaluate
from vision.models.convnext import ConvNeXt
from vision.parallel.mesh import Mesh
from vision.train.objective import Context, Variables
from vision.train.precision import Precision

RNG = np.random.default_rng(0)
SIZES: Any = {"depths": (1, 1), "dims": (8, 16), "stem_stride": 2, "num_classes": 1}


class Circular(nn.Module):
    """A convolution whose edges meet, and the mean of its map."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, tap: Any = None) -> Any:
        x = nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR")(x))
        pooled = x.mean((1, 2))
        return pooled, {"logits": nn.Dense(1)(pooled), "embedding": pooled}


def test_what_is_laid_does_not_change_when_the_texture_is_rolled():
    x = RNG.normal(size=(2, 5, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(lay(jnp.asarray(x), 2)[:, 5:, 6:], x)
    np.testing.assert_array_equal(lay(jnp.asarray(x), 1), x)
    tower = Laid(Circular())
    variables = tower.init(jax.random.key(0), jnp.asarray(x))
    run = quick_jit(lambda x: tower.apply(variables, x)[1]["logits"])  # pyright: ignore[reportArgumentType]
    rolled = np.roll(x, (2, 3), (1, 2))
    np.testing.assert_allclose(run(x), run(rolled), atol=1e-5)
    cut = np.concatenate([x[:, :4], x[:, 1:2]], 1)
    assert np.abs(run(x) - run(cut)).min() > 1e-4


def test_attention_is_that_of_its_equation_and_gamma_0_is_convnext():
    x = RNG.normal(size=(2, 3, 4, 8)).astype(np.float32)
    module = ResidualLinearAttention(2, 3, Precision(), gamma=1.0)
    variables = quick_jit(module.init)(jax.random.key(0), x)
    w = jax.tree.map(lambda a: np.asarray(a, np.float64), dict(variables["params"]))
    tokens = x.reshape(2, 12, 8).astype(np.float64)
    q, k, v = ((tokens @ w[n]["kernel"] + w[n]["bias"]).reshape(2, 12, 2, 3) for n in "qkv")
    q, k = np.exp(q), np.exp(k)
    q, k = q / q.sum(-1, keepdims=True), k / k.sum(1, keepdims=True)
    y = np.empty((2, 12, 2, 3))
    for b in range(2):
        for h in range(2):
            y[b, :, h] = q[b, :, h] @ (k[b, :, h].T @ v[b, :, h])
    y = y.reshape(2, 12, 6) @ w["proj"]["kernel"] + w["proj"]["bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        quick_jit(module.apply)(variables, x), x + y.reshape(x.shape), atol=1e-4
    )

    plain, ours = ConvNeXt(**SIZES), AttentiveConvNeXt(**SIZES, attention=(1,), heads=2)
    given, _ = random_variables(ours, (2, 8, 8, 3))
    params = dict(given)
    attention = dict(params.pop("stage1_attention"))
    silent = {**attention, "gamma": jnp.zeros_like(attention["gamma"])}
    image = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)

    def logits(tower: Any, params: Any) -> Any:
        return quick_jit(lambda p, x: tower.apply({"params": p}, x)[1]["logits"])(params, image)

    np.testing.assert_allclose(
        logits(ours, {**params, "stage1_attention": silent}), logits(plain, params), atol=1e-6
    )
    with pytest.raises(ValueError, match="attention=2, but there are 2 stages"):
        AttentiveConvNeXt(**SIZES)


def test_wallpapers_tile_or_do_not_and_a_cut_breaks_them():
    source = wallpapers("train", 40)
    records = [source[i] for i in range(40)]
    label = np.array([record["label"] for record in records])
    steps = seam(np.stack([record["image"] for record in records]).astype(np.float64))
    assert steps[label == 1].mean() < 1.3 < 2 < steps[label == 0].mean()
    rng = np.random.default_rng(1)
    for record in (records[1], records[0]):
        rolled = Rolled()(record, rng)
        assert rolled["label"] == record["label"]
        np.testing.assert_array_equal(
            np.sort(rolled["image"], None), np.sort(record["image"], None)
        )
        cut = Cut(probability=1.0)(record, rng)
        assert cut["label"] == 0
        assert cut["image"].shape[0] < 24 > cut["image"].shape[1] >= 12
        assert Cut(probability=0.0)(record, rng)["image"] is record["image"]
    rolled = Rolled()(records[1], rng)["image"]
    assert seam(np.stack([rolled, records[0]["image"]]))[0] < 2


def test_losses_scores_and_the_mean_of_them():
    objective = TellTiles(Laid(Circular()), scale=0.5)
    batch = {
        "image": RNG.normal(size=(4, 4, 4, 1)).astype(np.float32),
        "label": np.array([1, 0, -1, 1], np.int32),
        "_mask": np.array([True, True, True, False]),
    }
    variables = objective.init(jax.random.key(0), batch)

    def both(variables: Variables, batch: Any) -> Any:
        ctx = Context.evaluation()
        return *objective.loss(variables, batch, ctx), objective.predict(variables, batch, ctx)

    loss, aux, out = quick_jit(both)(variables, batch)
    logit = np.asarray(out["logits"])[:, 1]
    np.testing.assert_allclose(out["tileability"], 1 / (1 + np.exp(-0.5 * logit)), rtol=1e-5)
    wanted = (np.log1p(np.exp(-logit[0])) + np.log1p(np.exp(logit[1]))) / 2
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert int(aux.weight) == 2

    def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
        return {"tileability": batch["image"].mean((1, 2, 3))}

    scores = np.array([0.9, 0.4, 0.6, np.nan, 0.1], np.float32)
    image = np.repeat(scores, 12).reshape(5, 12)
    asked = data(image=image, label=np.array([1, 1, 0, 0, 0], np.int32))
    mesh = Mesh().build(jax.devices()[:1])
    got, _ = evaluate(Tileability(asked), predict, Variables({}, {}, {}), 1, mesh)
    assert got["auroc"] == pytest.approx(3 / 4)
    assert got["accuracy"] == pytest.approx(2 / 4)
    assert got["tileability"] == pytest.approx(0.5)
    assert (got["examples"], got["nonfinite"]) == (5, 1)


def test_a_mended_texture_scores_higher_and_stays_near():
    images = jnp.asarray(RNG.uniform(-1, 1, (2, 6, 6, 1)).astype(np.float32))

    def logit(x: jax.Array) -> jax.Array:
        return -10 * jnp.abs(x[:, 0] - x[:, -1]).mean((1, 2))

    made = mend(logit, images, 40, 0.02, 0.1)
    assert (logit(made) > logit(images) / 2).all()
    assert float(jnp.abs(made).max()) <= 1
    still = mend(logit, images, 40, 0.02, 1e9)
    np.testing.assert_allclose(still, images, atol=0.05)

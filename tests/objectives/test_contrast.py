"""The contrastive objective with a dual encoder of two small layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.blocks.contrast import Ranking, Sigmoid, Softmax
from vision.blocks.grouping import Grouping
from vision.blocks.similarity import BestPart, ContrastError, LateInteraction, unit
from vision.config import specs as config
from vision.objectives.contrast import Contrast, OwnPair, SameKey, SoftLabels, share_cut
from vision.parallel.mesh import Mesh, to_device
from vision.train.accumulate import loss_and_gradient
from vision.train.objective import Context
from vision.train.tower import forward

ROWS = 16


class Dual(nn.Module):
    """Means of linear patches and of word vectors."""

    width: int = 8
    text_width: int = 8

    @nn.compact
    def __call__(self, batch: Any, train: bool = False, tap: Any = None):
        out = {}
        if "image" in batch:
            tokens = nn.Dense(self.width, name="patch")(batch["image"])
            out |= {"image/tokens": unit(tokens), "image/embedding": unit(tokens.mean(-2))}
        if "text" in batch:
            ids = batch["text"]
            tokens = nn.Embed(64, self.text_width, name="words")(ids)
            mask = ids > 0
            out |= {"text/tokens": unit(tokens), "text/mask": mask}
            out["text/embedding"] = unit(jnp.sum(tokens * mask[..., None], -2))
        return next(iter(out.values())), out


def batch(captions: int | None = None, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shape = (ROWS, 5) if captions is None else (ROWS, captions, 5)
    ids = rng.integers(1, 64, shape).astype(np.int32)
    ids[..., 3:] *= rng.random((*shape[:-1], 2)) > 0.5
    return {
        "image": rng.normal(size=(ROWS, 4, 6)).astype(np.float32),
        "text": ids,
        "label": rng.integers(-1, 4, ROWS).astype(np.int32),
        "_mask": np.arange(ROWS) != 3,
    }


def start(objective: Contrast, data: Any):
    variables = jax.jit(objective.init)(jax.random.key(0), data)
    return variables, Context(step=jnp.int32(0), total_steps=10, train=True)


def run(objective: Contrast, data: Any, accumulate: int = 1):
    variables, context = start(objective, data)

    @jax.jit
    def step(variables, data):
        return loss_and_gradient(objective, variables.params, variables, data, context, accumulate)

    return step(variables, data)


def equal(a, b) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), a, b)


@pytest.mark.parametrize(
    "objective",
    [
        Contrast(Dual()),
        pytest.param(
            Contrast(Dual(), Sigmoid(), LateInteraction(4), SameKey()), marks=pytest.mark.slow
        ),
    ],
    ids=["clip", "late"],
)
def test_micro_batches_and_a_mesh_change_nothing(objective: Contrast):
    data = batch()
    loss, aux, grads = run(objective, data)
    assert set(grads) == {"model", "contrast"}
    actual = run(objective, data, accumulate=4)
    equal((actual[0], actual[1].metrics, actual[2]), (loss, aux.metrics, grads))
    mesh = Mesh(data=4, fsdp=2).build()
    with jax.set_mesh(mesh):
        actual = run(objective, to_device(data, mesh))
    equal((actual[0], actual[1].metrics, actual[2]), (loss, aux.metrics, grads))


def test_the_loss_of_several_captions_is_the_mean_of_theirs():
    data = batch(captions=3)
    objective = Contrast(Dual(), Softmax(weights=(1.0, 0.0)), duplicates="ignore")
    actual = run(objective, data)
    each = [run(objective, {**data, "text": data["text"][:, c]}) for c in range(3)]
    equal(actual[0], np.mean([result[0] for result in each]))
    equal(actual[2], jax.tree.map(lambda *g: np.mean(g, 0), *(result[2] for result in each)))


def test_captions_that_do_not_exist_do_not_count():
    data = batch(captions=2)
    caption_mask = np.ones((ROWS, 2), bool)
    caption_mask[:, 1] = False
    caption_mask[5] = False
    some = {**data, "text_mask": caption_mask}
    for similarity in (Contrast(Dual()).similarity, BestPart()):
        objective = Contrast(Dual(), similarity=similarity)
        actual = run(objective, some)
        alone = {**data, "text": data["text"][:, 0], "_mask": data["_mask"] & caption_mask[:, 0]}
        expected = run(objective, alone)
        equal((actual[0], actual[2]), (expected[0], expected[2]))
        assert float(actual[1].metrics["without_text"]) == pytest.approx(1 / (ROWS - 1))


def test_rows_with_the_same_caption_are_no_negatives_of_each_other():
    data = batch()
    data["text"][:] = data["text"][0]
    ignore = Contrast(Dual(), duplicates="ignore")
    loss, aux, _ = run(ignore, data)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    loss, aux, _ = run(dataclasses.replace(ignore, duplicates="negative"), data)
    assert float(loss) > 1
    assert float(aux.metrics["accuracy_image_to_text"]) == 0


def test_targets_define_positives():
    data = batch()
    same = SameKey().keys({k: jnp.asarray(v) for k, v in data.items()})
    expected = (data["label"][:, None] == data["label"]) & (data["label"] >= 0)
    np.testing.assert_array_equal(same[:, None] == same, expected | np.eye(ROWS, dtype=bool))
    one_hot = {**data, "label": np.eye(5, dtype=np.float32)[data["label"] % 5]}
    labelled = {**data, "label": data["label"] % 5}
    hard, soft = (
        run(Contrast(Dual(), targets=t), d)[0]
        for t, d in ((SameKey(), labelled), (SoftLabels(), one_hot))
    )
    equal(hard, soft)
    assert abs(float(hard - run(Contrast(Dual(), targets=OwnPair()), data)[0])) > 0.01


def test_gradient_of_a_batch_of_one_class():
    data = {**batch(), "label": np.full(ROWS, 2, np.int32)}
    loss, aux, grads = run(Contrast(Dual(), targets=SameKey()), data)
    assert float(loss) >= np.log(ROWS - 1)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert float(aux.metrics["accuracy_image_to_text"]) == 1


def test_pairs_are_learned():
    objective = Contrast(Dual(width=16, text_width=16), Softmax())
    data = batch()
    variables, context = start(objective, data)

    @jax.jit
    def many(params):
        def step(params, _):
            loss, aux, grads = loss_and_gradient(objective, params, variables, data, context)
            return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), (loss, aux.metrics)

        return jax.lax.scan(step, params, None, length=150)

    _, (losses, metrics) = many(variables.params)
    assert losses[0] > 2
    assert losses[-1] < 0.5
    assert metrics["accuracy_image_to_text"][-1] > 0.9
    assert float(metrics["temperature"][0]) == pytest.approx(0.07, rel=1e-5)


def test_learned_parameters_of_ranking_and_sigmoid():
    variables, _ = start(Contrast(Dual(), Ranking()), batch())
    assert set(variables.params) == {"model"}
    _, aux, _ = run(Contrast(Dual(), Sigmoid()), batch())
    assert float(aux.metrics["bias"]) == -10
    assert float(aux.metrics["temperature"]) == pytest.approx(0.1)


def test_predict_needs_only_one_modality():
    data = batch()
    objective = Contrast(Dual())
    variables, context = start(objective, data)

    def predict(*names: str):
        return objective.predict(variables, {n: jnp.asarray(data[n]) for n in names}, context)

    both = predict("image", "text")
    assert set(predict("text")) == {"text/embedding"}
    equal(predict("image")["embedding"], both["image/embedding"])
    equal(predict("text")["text/embedding"], both["text/embedding"])


def test_grouping_compares_every_caption_with_the_patches_that_it_selects():
    data = batch(captions=2)
    data["text_mask"] = np.ones((ROWS, 2), bool)
    data["text_mask"][4, 1] = False
    grouping = Grouping(weight=0.5, criterion=Sigmoid())
    plain = Contrast(Dual())
    with_groups = dataclasses.replace(plain, grouping=grouping)
    without_weight = dataclasses.replace(plain, grouping=dataclasses.replace(grouping, weight=0.0))
    variables, context = start(with_groups, data)
    params = variables.params
    assert set(params["grouping"]) == {"log_scale", "bias"}

    @jax.jit
    def losses(variables, data):
        return [o.loss(variables, data, context) for o in (plain, with_groups, without_weight)]

    (loss, _), (both, aux), (off, _) = losses(variables, data)
    equal(both, loss + 0.5 * aux.metrics["grouping_loss"])
    equal(off, loss)

    out = forward(Dual(), params["model"], {}, data, train=False)[1]
    group = np.asarray(grouping.gather(out["image/tokens"], out["text/embedding"]))
    caption_mask = (data["text_mask"] & data["_mask"][:, None]).ravel()
    group, text = (
        np.asarray(x).reshape(-1, 8)[caption_mask] for x in (group, out["text/embedding"])
    )
    logits = 10 * group @ text.T - 10
    sign = 2 * np.eye(len(logits)) - 1
    expected = np.log1p(np.exp(-sign * logits)).sum() / len(logits)
    equal(aux.metrics["grouping_loss"], expected)


def test_truncated_captions_are_counted():
    data = batch(captions=2)
    cut = np.zeros((ROWS, 2), np.int32)
    cut[3], cut[5, 0], cut[7] = 9, 2, 1  # row 3 is masked
    caption_mask = np.ones((ROWS, 2), bool)
    caption_mask[7, 1] = False

    present = jnp.asarray(caption_mask & data["_mask"][:, None])
    assert float(share_cut(jnp.asarray(cut), present)) == pytest.approx(2 / 29)
    objective = Contrast(Dual(), Ranking())
    variables, context = start(objective, batch())
    some = {**batch(), "text_cut": cut[:, 0]}
    metrics = jax.jit(lambda v, b: objective.loss(v, b, context)[1].metrics)(variables, some)
    assert float(metrics["text_cut"]) == pytest.approx(2 / 15)


def test_errors():
    data = batch()
    with pytest.raises(ContrastError, match=r"8 numbers .* 12.*width"):
        run(Contrast(Dual(text_width=12)), data)
    with pytest.raises(ContrastError, match="'label'"):
        run(Contrast(Dual(), targets=SameKey()), {k: data[k] for k in ("image", "text", "_mask")})
    with pytest.raises(ContrastError, match="SoftLabels"):
        run(Contrast(Dual(), targets=SoftLabels()), data)
    with pytest.raises(ContrastError, match="'text'"):
        Contrast(Dual()).init(jax.random.key(0), {"image": jnp.asarray(data["image"])})

    class Global(Dual):
        @nn.compact
        def __call__(self, batch: Any, train: bool = False, tap: Any = None):
            embedding, out = super().__call__(batch, train, tap)
            return embedding, {k: out[k] for k in ("image/embedding", "text/embedding")}

    for objective in (
        Contrast(Global(), similarity=LateInteraction()),
        Contrast(Global(), grouping=Grouping()),
    ):
        with pytest.raises(ContrastError, match="image/tokens"):
            run(objective, data)
    with pytest.raises(ContrastError, match="no patch remains"):
        run(Contrast(Dual(), grouping=Grouping(prefix=4)), data)
    with pytest.raises(ValueError, match="duplicates"):
        Contrast(Dual(), duplicates="positive")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="groups"):
        Contrast(Dual(), groups=0)


def test_all_options_in_a_config():
    node = config.spec(
        Contrast,
        criterion=config.spec(Softmax, label_smoothing=0.1),
        similarity=config.spec(LateInteraction, keep=0.25),
        targets=config.spec(SameKey, field="identity"),
    )
    built = config.build(node, model=Dual())
    expected = Contrast(
        Dual(), Softmax(label_smoothing=0.1), LateInteraction(keep=0.25), SameKey("identity")
    )
    assert built == expected

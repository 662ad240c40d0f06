"""An adapter that starts as nothing, learns a language, and leaves English as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.babel_imagenet.method import AdaptText
from papers.babel_imagenet.translated import Translated
from vision.blocks.similarity import unit
from vision.data.source import DataError
from vision.data.sources.scenes import translate
from vision.data.sources.scenes.captions import with_article
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.train.objective import Context, Variables
from vision.train.tower import apply_tap

ROOT = Path(__file__).resolve().parents[2]


class Words(nn.Module):
    """Means of pixels, and of word vectors after a layer."""

    @nn.compact
    def __call__(self, batch: Any, train: bool = False, tap: Any = None):
        out = {}
        if "image" in batch:
            out["image/embedding"] = unit(nn.Dense(8)(batch["image"].mean((1, 2))))
        if "text" in batch:
            x = apply_tap(tap, "text/stem", nn.Embed(12, 8, name="words")(batch["text"]))
            x = apply_tap(tap, "text/block00", nn.relu(nn.Dense(8, name="layer")(x)))
            out["text/embedding"] = unit(x.mean(1))
        return next(iter(out.values())), out


MODEL = Words()
ENGLISH = jnp.array([[1, 4, 5, 6, 2], [1, 7, 5, 2, 0], [1, 6, 6, 4, 2]])
FOREIGN = jnp.where((ENGLISH >= 4) & (ENGLISH < 8), ENGLISH + 4, ENGLISH)
BATCH: dict[str, Any] = {
    "image": jnp.zeros((3, 8, 8, 3)),
    "text": FOREIGN,
    "text_english": ENGLISH,
    "_mask": jnp.array([True, True, False]),
}
OBJECTIVE = AdaptText(MODEL, width=4)


@pytest.fixture(scope="module")
def variables() -> Variables:
    return jax.jit(OBJECTIVE.init)(jax.random.key(0), BATCH)


CTX = Context(jnp.int32(0), 10, train=False)


def test_a_fresh_adapter_is_the_base_and_sits_at_every_place(variables: Variables):
    real = Dual(ViT(variant="Ti/4"), TextTransformer(12, width=16, depth=2, heads=1, context=5))
    shapes = jax.eval_shape(AdaptText(real, width=4).init, jax.random.key(0), BATCH)
    assert sorted(shapes.params["adapter"]) == ["text_block00", "text_block01", "text_stem"]
    assert shapes.params["adapter"]["text_block01"]["down"]["kernel"].shape == (16, 4)
    adapted, plain = (
        jax.jit(lambda adapted=adapted: OBJECTIVE.texts(variables, CTX, FOREIGN, adapted))()
        for adapted in (True, False)
    )
    np.testing.assert_allclose(adapted, plain, rtol=1e-5, atol=1e-6)  # two programs


def test_it_learns_the_language(variables: Variables):
    @jax.jit
    def update(adapter: Any) -> tuple[Any, jax.Array]:
        def loss(adapter: Any) -> jax.Array:
            return OBJECTIVE.loss(variables.merge(params={"adapter": adapter}), BATCH, CTX)[0]

        value, gradient = jax.value_and_grad(loss)(adapter)
        return jax.tree.map(lambda w, g: w - 0.5 * g, adapter, gradient), value

    adapter, losses = variables.params["adapter"], []
    for _ in range(100):
        adapter, value = update(adapter)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    learned = variables.merge(params={"adapter": adapter})
    # Row 2 is masked: whatever stands there, the loss is the same.
    masked = {**BATCH, "text": FOREIGN.at[2].set(FOREIGN[0])}
    loss = jax.jit(lambda batch: OBJECTIVE.loss(learned, batch, CTX)[0])
    same = [float(loss(each)) for each in (BATCH, masked)]
    assert same[0] == pytest.approx(same[1], abs=1e-6)


def test_predictions_of_one_side_need_no_other(variables: Variables):
    predict = OBJECTIVE.predict
    for name, given in (("image/embedding", "image"), ("text/embedding", "text")):
        batch = {given: BATCH[given]}
        shapes = jax.eval_shape(lambda b=batch: predict(variables, b, CTX))
        assert shapes.keys() - {"embedding"} == {name}
        assert shapes[name].shape == (3, 8)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="width"):
        AdaptText(MODEL, width=0)
    with pytest.raises(ValueError, match="no place"):
        jax.eval_shape(AdaptText(MODEL, sites="text/nowhere").init, jax.random.key(0), BATCH)


def test_captions_are_translated_and_kept():
    rng = np.random.default_rng(0)
    example = Translated(3)({"caption": "a red star"}, rng)
    assert example == {"caption": "a red star", "caption_translated": translate("a red star", 3)}
    with pytest.raises(DataError, match="zebra"):
        Translated(1)({"caption": "a zebra"}, rng)
    with pytest.raises(ValueError, match="no feature 'caption'"):
        Translated(1)({}, rng)
    with pytest.raises(ValueError, match="language is 0"):
        Translated(0)


def test_the_names_that_ship_are_those_of_the_languages():
    names = json.loads((ROOT / "papers/babel_imagenet/babel_scenes.json").read_text())
    assert [*names] == ["EN", "A", "B", "C"]
    for language, translations in enumerate(names.values()):
        assert len(translations) == 8
        assert translations == {
            name: translate(with_article(f"{name} thing"), language) for name in translations
        }

"""MetaFormer: published sizes; what is masked, missing or unknown counts as zeros."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.metaformer.fields import EncodeMeta, Sightings, place_vector, time_vector
from papers.metaformer.method import ClassifyWithMeta
from papers.metaformer.stages import rows_of
from papers.metaformer.tower import MetaFormer
from papers.metaformer.variants import PLANS
from tests.models.tower_cases import abstract_variables, quick_jit
from tests.tiny import filled
from vision.train.flops import count
from vision.train.objective import Context, Variables
from vision.train.tower import count_params

MODEL: Any = MetaFormer(
    fields=(4, 3), widths=(4, 8, 8, 8, 16), depths=(1, 1, 1, 1), heads=2, num_classes=3
)
OBJECTIVE = ClassifyWithMeta(MODEL)
RNG = np.random.default_rng(0)


def batch() -> dict[str, Any]:
    image = RNG.normal(size=(4, 32, 32, 3)).astype(np.float32)
    meta = RNG.normal(size=(4, 7)).astype(np.float32)
    return {"image": image, "meta": meta, "label": np.arange(4) % 3, "_mask": np.ones(4, bool)}


@pytest.fixture(scope="module")
def variables() -> Any:
    params, state = filled(abstract_variables(MODEL, (1, 32, 32, 3)))
    return Variables({"model": params}, {"model": state}, {})


@pytest.fixture(scope="module")
def answer(variables: Any) -> Any:
    """Logits of a batch, by one program with ``meta`` and one without."""

    @quick_jit
    def predict(given: Any) -> Any:
        return OBJECTIVE.predict(variables, given, Context.evaluation())["logits"]

    return lambda given: np.asarray(predict(given))


# As the authors' code counts without metadata and with place and time, their table 28, 45 and 81
# million; and their GFLOPs, which leave out what attention multiplies: with it 4.7, 8.8 and 17.5.
SIZES = {
    "0": (28_721_195, 31_699_115, 4.6),
    "1": (45_873_035, 48_850_955, 8.5),
    "2": (81_299_563, 86_580_843, 16.9),
}


@pytest.mark.parametrize("variant", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_towers_have_the_published_sizes(variant: Any):
    plain, both, giga = SIZES[variant]
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    towers = [MetaFormer(variant, num_classes=1000, fields=fields) for fields in ((), (4, 3))]
    found = [abstract_variables(tower, image.shape) for tower in towers]
    assert [count_params(params) for params, _ in found] == [plain, both]
    names: Any = {"params": found[0][0], **found[0][1]}
    products = count(lambda v, x: towers[0].apply(v, x), names, image) / 2
    # The class token and the maps of 14 x 14 and 7 x 7: scores, and sums by them.
    stages = zip(PLANS[variant].depths[2:], PLANS[variant].widths[3:], (197, 50), strict=True)
    attention = sum(2 * depth * width * tokens**2 for depth, width, tokens in stages)
    assert abs((products - attention) / 1e9 - giga) < 0.1


def test_zeros_stand_for_what_is_masked_missing_or_unknown(answer: Any):
    given = batch()
    without = {name: x for name, x in given.items() if name != "meta"}
    plain = answer(without)
    np.testing.assert_allclose(answer({**given, "meta": 0 * given["meta"]}), plain, atol=1e-5)
    np.testing.assert_allclose(answer({**given, "meta": np.nan * given["meta"]}), plain, atol=1e-5)
    assert np.abs(answer(given) - plain).max() > 1e-3
    # One image's metadata are no other's.
    one = np.where(np.arange(4)[:, None] == 2, given["meta"], 0)
    changed = np.abs(answer({**given, "meta": one}) - plain).max(1) > 1e-4
    assert changed.tolist() == [False, False, True, False]


def test_the_share_that_is_masked_falls_with_the_steps():
    meta = jnp.ones((8, 7))
    decaying, constant = ClassifyWithMeta(MODEL), ClassifyWithMeta(MODEL, mask=0.5, decay=False)
    for objective, step, rows in ((decaying, 0, 8), (decaying, 5, 4), (constant, 9, 4)):
        ctx = Context(jnp.int32(step), 10, True, jax.random.key(1))
        silent = ~np.asarray(objective.masked(meta, ctx)).any(1)
        assert silent.sum() == rows
    late = Context(jnp.int32(9), 10, True, jax.random.key(1))
    below = dataclasses.replace(decaying, mask=0.25)  # 0.25 - 0.9
    np.testing.assert_array_equal(below.masked(meta, late), meta)


def test_pairs_without_a_place_share_a_bias():
    rows = rows_of((2, 3), 2)
    assert rows.shape == (8, 8)
    last = 3 * 5
    assert (rows[:2] == last).all()
    assert (rows[:, :2] == last).all()
    assert rows[2:, 2:].max() < last
    assert rows[2, 2] == rows[7, 7]  # no offset


def test_places_are_points_of_a_sphere_and_times_of_circles():
    np.testing.assert_allclose(place_vector(0, 0), (1, 0, 0), atol=1e-6)
    np.testing.assert_allclose(place_vector(90, 33), (0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(place_vector(10, 180), place_vector(10, -180), atol=1e-6)
    np.testing.assert_array_equal(place_vector(float("nan"), 4), 0)
    np.testing.assert_allclose(time_vector(12, 6), (0, 1, 1, 0), atol=1e-6)
    np.testing.assert_allclose(time_vector(3, float("nan")), (1, 0, 0, 0), atol=1e-6)
    rng = np.random.default_rng(0)
    example = {"label": 5, "place": np.array([0.0, 90.0]), "time": np.array([6.0, 0.0])}
    meta = EncodeMeta(attributes="colour", num_attributes=2)(example, rng)["meta"]
    np.testing.assert_allclose(meta, (0, -1, 0, 1, 0, 1, 0, 0, 0), atol=1e-6)
    unknown = EncodeMeta()(Sightings(missing=1.0)({"label": 5}, rng), rng)["meta"]
    np.testing.assert_array_equal(unknown, np.zeros(7))
    for _ in range(50):  # never outside the ranges
        assert EncodeMeta()(Sightings(scatter_deg=60.0)({"label": 5}, rng), rng)["meta"].any()


def test_what_cannot_be_is_named(variables: Any):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"latitude 91.0 is outside -90..90"):
        EncodeMeta()({"place": np.array([91.0, 0.0])}, rng)
    with pytest.raises(ValueError, match=r"month 0.0 is outside 1..12"):
        EncodeMeta()({"time": np.array([0.0, 0.0])}, rng)
    with pytest.raises(ValueError, match=r"'place' has shape \(3,\), 2 numbers"):
        EncodeMeta()({"place": np.zeros(3)}, rng)
    with pytest.raises(ValueError, match="heads=5 do not divide"):
        MetaFormer(heads=5)
    given = batch()
    short, none = {**given, "meta": given["meta"][:, :6]}, dict(given)
    del none["meta"]
    ctx = Context(jnp.int32(0), 10, True, jax.random.key(1))
    with pytest.raises(ValueError, match=r"meta has shape \(4, 6\), but fields=\(4, 3\)"):
        jax.eval_shape(lambda: OBJECTIVE.predict(variables, short, ctx))
    with pytest.raises(ValueError, match="batches to learn from have 'meta'"):
        OBJECTIVE.loss(variables, none, ctx)

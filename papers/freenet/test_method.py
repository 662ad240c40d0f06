"""FreeNet: strata part the learned pixels, only counted pixels have gradients, sizes, bad cubes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import savemat

from papers.freenet.method import PixelAccuracy, Polynomial, StratumLoss, accuracies
from papers.freenet.scene import DrawnScene, MatScene
from papers.freenet.strata import LabelledPixels, split, strata
from papers.freenet.tower import FreeNet
from tests.models.tower_cases import abstract_variables, quick_jit
from tests.tiny import filled
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext
from vision.train.objective import Context, Variables
from vision.train.schedule import TrainLength
from vision.train.tower import Tap, count_params

SCENE = DrawnScene(side=10, bands=3, classes=3, blur=1.0)
SIZES: Any = {"per_class": 7, "stratum": 3, "passes": 2, "multiple": 4}
TOWER = FreeNet(widths=(4, 6), depths=(1, 1), inner=4, groups=2, num_classes=3)


def test_strata_part_the_learned_pixels_of_every_class():
    labels = np.zeros((6, 7), np.int32)
    labels[:3, :5], labels[3:, :4] = 1, 2  # 15 and 12 pixels
    learned = split(labels, 13, seed=0)
    assert [int(learned[labels == kind].sum()) for kind in (0, 1, 2)] == [0, 13, 12]
    masks = strata(labels, learned, 5, seed=1)
    np.testing.assert_array_equal(np.sum(masks, 0), learned)
    counts = [[int(mask[labels == kind].sum()) for kind in (1, 2)] for mask in masks]
    assert counts == [[5, 5], [5, 5], [3, 2]]
    other = strata(labels, learned, 5, seed=2)
    assert not np.array_equal(masks[0], other[0])
    # A class that is used up drops out.
    assert len(strata(labels, split(labels, 12, 0) & (labels == 1), 5, 0)) == 3


def test_records_are_passes_over_the_strata_and_the_rest_is_asked():
    learned, asked = (LabelledPixels(SCENE, part, **SIZES) for part in ("train", "test"))
    assert (len(learned), len(asked)) == (3 * 2, 1)
    records = [learned[i] for i in range(6)]
    assert records[0]["image"].shape == (12, 12, 3)
    passes: Any = [sum(r["counted"].astype(int) for r in records[i : i + 3]) for i in (0, 3)]
    np.testing.assert_array_equal(passes[0], passes[1])
    assert passes[0].max() == 1
    pairs = zip(records[:3], records[3:], strict=True)
    assert any(np.any(a["counted"] != b["counted"]) for a, b in pairs)
    rest = asked[0]
    assert not np.any(rest["counted"] & (passes[0] > 0))
    labelled = rest["label_map"] >= 0
    np.testing.assert_array_equal(rest["counted"] | (passes[0] > 0), labelled)
    assert labelled.sum() == 100
    assert not labelled[10:].any()
    inside = rest["image"][:10, :10]
    np.testing.assert_allclose(inside.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std((0, 1)), 1, rtol=1e-5)
    assert not rest["image"][10:].any()
    rest["image"][:] = 9
    assert asked[0]["image"].max() < 9


@pytest.fixture(scope="module")
def variables() -> Any:
    return filled(abstract_variables(TOWER, (1, 12, 12, 3)))


def batch_of(part: Any, index: int = 0) -> Any:
    record = LabelledPixels(SCENE, part, **SIZES)[index]
    return {key: x[None] for key, x in record.items()} | {"_mask": np.ones(1, bool)}


def test_only_counted_pixels_have_a_gradient_and_all_count_alike(variables: Any):
    batch, objective = batch_of("train"), StratumLoss(TOWER)
    params, state = variables

    @quick_jit
    def slopes(extra: jax.Array) -> Any:
        def loss(extra: jax.Array) -> jax.Array:
            tap = Tap(lambda name, x: x + extra if name == "logits" else x)
            out: Any = TOWER.apply({"params": params}, batch["image"], tap=tap)[1]
            picked = jax.nn.log_softmax(out["logits"])
            told = jnp.take_along_axis(picked, jnp.maximum(batch["label_map"], 0)[..., None], -1)
            counted = batch["counted"][..., None]
            return -jnp.sum(told * counted) / counted.sum()

        given = Variables({"model": params}, {"model": state}, {})
        ours = objective.loss(given, batch, Context.evaluation())
        return ours[0], jax.value_and_grad(loss)(extra)

    (ours, (theirs, slope)) = slopes(jnp.zeros((1, 12, 12, 3)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    moved = np.abs(slope).sum(-1) > 0
    np.testing.assert_array_equal(moved, batch["counted"])


def test_the_network_has_the_authors_parameters_and_reads_everything(variables: Any):
    """By their modules: 3 x 3 convolutions with biases, norms, gates and four of the decoder."""
    widths, inner, bands, classes = (96, 128, 192, 256), 128, 103, 9

    def conv(a: int, b: int, side: int) -> int:
        return a * b * side**2 + b

    expected = conv(bands, 96, 3) + 2 * 96 + conv(inner, classes, 1)
    for i, width in enumerate(widths):
        expected += conv(width, width // 16, 1) + conv(width // 16, width, 1)
        expected += conv(width, width, 3) + 2 * width
        expected += conv(width, inner, 1) + conv(inner, inner, 3)
        expected += conv(widths[i - 1], width, 3) if i else 0
    params = abstract_variables(FreeNet(num_classes=9), (1, 16, 16, bands))[0]
    assert count_params(params) == expected
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 12, 12, 3)), jnp.float32)

    @quick_jit
    def reach(x: jax.Array) -> Any:
        def corner(tower: FreeNet, params: Any) -> jax.Array:
            logit = lambda x: tower.apply({"params": params}, x)[1]["logits"][0, 0, 0, 0]  # noqa: E731
            return jax.grad(logit)(x)

        window = FreeNet((4,), (1,), 4, 2, gates=False, num_classes=3)
        own = filled(abstract_variables(window, (1, 12, 12, 3)))[0]
        return corner(TOWER, variables[0]), corner(window, own)

    whole, window = (np.abs(slope[0]).sum(-1) > 0 for slope in reach(x))
    assert whole.all()  # the gates see all
    np.testing.assert_array_equal(np.argwhere(window).max(0) + 1, [12, 12])  # by its norms


def test_accuracies_by_hand():
    table = np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]])
    found = accuracies(table)
    expected = (8 * 7 + 2 * 3) / 100
    assert found["overall"] == pytest.approx(0.7)
    assert found["average"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert found["kappa"] == pytest.approx((0.7 - expected) / (1 - expected))
    with pytest.raises(ValueError, match="no pixel is counted"):
        accuracies(np.zeros((2, 2), int))

    batch = batch_of("test")
    right = jax.nn.one_hot(batch["label_map"], 3)
    data: Any = type("Data", (), {"source": LabelledPixels(SCENE, "test", **SIZES)})()
    ctx = EvalContext(Variables({}, {}, {}), 0, lambda _: iter([batch]))
    names = dict(PixelAccuracy(data).run(lambda _, batch: {"logits": right}, ctx))
    assert names["overall"] == names["average"] == names["kappa"] == 1
    rates = [float(Polynomial()(jnp.asarray(t), TrainLength(1, 1, 10))) for t in (0, 5, 10)]
    np.testing.assert_allclose(rates, [1, 0.5**0.9, 0], rtol=1e-6)


def test_cubes_that_do_not_fit_are_named(tmp_path: Any, variables: Any):
    cube, labels = SCENE.cube, SCENE.labels
    savemat(tmp_path / "x.mat", {"cube": cube, "flat": cube[0], "hole": cube * np.nan})
    savemat(tmp_path / "y.mat", {"map": labels, "part": labels[:5]})
    (tmp_path / "z.mat").write_bytes(b"no matrix")

    def scene(**more: Any) -> MatScene:
        given = {"path": "x.mat", "variable": "cube", "labels_path": "y.mat"}
        given = {**given, "labels_variable": "map", "class_names": tuple("abc"), "bands": 3, **more}
        paths = {key: str(tmp_path / given[key]) for key in ("path", "labels_path")}
        return MatScene(**{**given, **paths})

    np.testing.assert_array_equal(scene().cube, cube)
    np.testing.assert_array_equal(scene().labels, labels)
    wrong: Any = (
        ({"bands": 4}, r"cube is \(10, 10, 3\), wanted .*bands=3"),
        ({"variable": "flat"}, r"flat is \(10, 3\)"),
        ({"variable": "hole"}, "not finite"),
        ({"variable": "none"}, "no variable 'none'; it has cube, flat, hole"),
        ({"labels_variable": "part"}, r"part is \(5, 10\), but the cube has \(10, 10\)"),
        ({"class_names": tuple("ab")}, "classes are 1 to 3, but there are 2 names"),
        ({"path": "z.mat"}, "no readable MATLAB file"),
        ({"path": "w.mat"}, r"w\.mat"),
    )
    for more, message in wrong:
        with pytest.raises(DataError, match=message):
            _ = scene(**more).labels
    constant = DrawnScene(side=4, bands=2, classes=1, noise=0)
    with pytest.raises(DataError, match="band 0 is constant"):
        LabelledPixels(constant, "train")[0]
    with pytest.raises(ValueError, match="cube of 5 bands for a network of 3 bands"):
        jax.eval_shape(lambda: TOWER.apply({"params": variables[0]}, jnp.zeros((1, 4, 4, 5))))
    with pytest.raises(ValueError, match="sides have to be multiples of 2"):
        abstract_variables(TOWER, (1, 5, 4, 3))
    with pytest.raises(ValueError, match="groups=16 does not divide the width 100"):
        FreeNet(widths=(100,), depths=(1,))

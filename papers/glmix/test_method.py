"""GLNet: the authors' logits, clusters that sum to 1, published sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.glmix.block import average_windows, pooled_slots, soft_clusters
from papers.glmix.method import GLNet
from papers.glmix.variants import PLANS
from tests.models.tower_cases import abstract_variables, random_variables, run
from vision.train.flops import count
from vision.train.tower import count_params

SIZES: Any = {"widths": (32, 64, 64, 32), "slots": 16, "num_classes": 5}
# By bench/goldens/glmix.py: what the authors' models/glnet.py (f01679c) answers with weights of
# ``random_variables`` to the image of ``image``; 4g there with the layer scale of 16g.
AUTHORS = {
    "16g": ((1, 1, 2, 1), (2, 96, 64, 3), [
        [-1.82067, -3.98939, 4.27420, 6.09345, -1.52945],
        [0.34596, -4.66735, 1.66551, 4.32321, -2.02832],
    ]),
    "stl_learned": ((1, 1, 1, 1), (2, 64, 64, 3), [
        [-5.04421, 5.62375, -2.19119, 2.96125, -0.54395],
        [-4.79489, 4.46641, -6.58816, 5.69369, 1.55458],
    ]),
}  # fmt: skip


def image(shape: tuple[int, ...]) -> jax.Array:
    drawn = np.random.default_rng(3).standard_normal(shape)
    return jnp.asarray(drawn.astype(np.float32))


@pytest.mark.parametrize("variant", ["16g", pytest.param("stl_learned", marks=pytest.mark.slow)])
def test_logits_are_those_of_the_authors_code(variant: Any):
    depths, shape, expected = AUTHORS[variant]
    tower = GLNet(variant, depths=depths, **SIZES)
    out = run(tower, random_variables(tower, shape), image(shape))
    np.testing.assert_allclose(out["logits"], expected, atol=2e-4)
    shares = np.asarray(out["block00/assignment"])
    assert shares.shape == (2, shape[1] // 4, shape[2] // 4, 16)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    assert "block03/assignment" not in out  # all tokens attend there


def test_clusters_gather_and_give_back():
    rng = np.random.default_rng(0)
    slots, tokens = rng.normal(size=(2, 4, 8)), rng.normal(size=(2, 9, 8))
    gather, give = jax.jit(soft_clusters)(slots, tokens, jnp.float32(5))
    np.testing.assert_allclose(gather.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(give.sum(-1), 1, atol=1e-6)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (slots, tokens)]
    logits = 5 * np.einsum("bsc,bnc->bsn", *unit)
    np.testing.assert_allclose(
        give[0, 3], np.exp(logits[0, :, 3]) / np.exp(logits[0, :, 3]).sum(), atol=1e-5
    )
    # Slots that start alike stay alike, and every token is given the mean of all.
    _, equal = soft_clusters(jnp.ones((1, 4, 8)), jnp.asarray(tokens[:1]), jnp.float32(3))
    np.testing.assert_allclose(equal, 0.25, atol=1e-6)


def test_windows_cover_maps_of_any_size():
    # 7 cells in 4 windows: 0-1, 1-3, 3-5, 5-6, as PyTorch's adaptive pooling has them.
    windows = average_windows(7, 4)
    assert [tuple(np.flatnonzero(row)) for row in windows] == [(0, 1), (1, 2, 3), (3, 4, 5), (5, 6)]
    np.testing.assert_allclose(windows.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(average_windows(2, 4), np.repeat(np.eye(2), 2, axis=0))
    x = image((1, 4, 6, 3))
    np.testing.assert_allclose(pooled_slots(x, 4)[0, 1], x[0, :2, 3:].mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "millions", "giga"),
    [
        pytest.param("4g", 27, 4.5, marks=pytest.mark.slow),
        pytest.param("9g", 60, 9.7, marks=pytest.mark.slow),
        pytest.param("16g", 106, 16.7, marks=pytest.mark.slow),
        ("stl", 30, 4.4),
    ],
)
def test_parameters_and_products_are_those_of_the_authors_table(
    variant: Any, millions: int, giga: float
):
    # Two blocks of a stage are traced, four where two kinds take turns; what the last one or two
    # add, those that are left out add too.
    plan = PLANS[variant]
    traced = tuple(4 if attended == "half" else 2 for attended in plan.attended)
    tower, image = GLNet(variant, depths=traced, num_classes=1000), (1, 224, 224, 3)
    params, state = abstract_variables(tower, image)
    variables: Any = {"params": params, **state}
    call = jax.jit(lambda variables, x: tower.apply(variables, x)[1])

    def products(site: str) -> float:
        pixels = jax.ShapeDtypeStruct(image, jnp.float32)
        return count(lambda variables, x: call(variables, x)[site], variables, pixels) / 2

    sizes, costs, last = count_params(params), products("logits"), -1
    for blocks, depth in zip(traced, plan.depths, strict=True):
        last, period = last + blocks, blocks // 2
        times = (depth - blocks) // period
        if times:
            names = [f"block{last - i:02d}" for i in range(period)]
            sizes += times * sum(count_params(params[name]) for name in names)
            costs += times * (products(names[0]) - products(f"block{last - period:02d}"))
    assert abs(sizes / 1e6 - millions) < 0.75
    assert abs(costs / 1e9 - giga) < 0.1


def test_what_cannot_be_is_named():
    cases: Any = (
        ({"slots": 15}, "slots=15 is not the square"),
        ({"widths": (48, 64, 64, 64)}, "multiples of a head's 32"),
        ({"widths": (32, 64)}, "one entry of every stage"),
    )
    for fields, message in cases:
        with pytest.raises(ValueError, match=message):
            GLNet(**fields)
    for variant in ("4g", "stl"):
        with pytest.raises(ValueError, match="31x40 is smaller than 32x32"):
            abstract_variables(GLNet(variant), (1, 31, 40, 3))

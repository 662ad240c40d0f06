"""Res-VMamba: VMamba without its path, orders that are undone, VMamba's sizes, sites."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.res_vmamba.block import cross_merge, cross_scan
from papers.res_vmamba.method import DEPTHS, ResVMamba
from tests.models.tower_cases import abstract_variables, random_variables, run
from vision.train.flops import count
from vision.train.tower import Tap, count_params, layers_above

SMALL: Any = {
    "depths": (1, 1),
    "width": 8,
    "patch": 2,
    "states": 2,
    "num_classes": 3,
    "sequential": True,
}
SHAPE = (2, 6, 10, 3)  # maps of 3 x 5: both paths pad them
TOWER = ResVMamba(**SMALL)


@pytest.fixture(scope="module")
def variables() -> Any:
    return random_variables(TOWER, SHAPE)


def image() -> Any:
    return jnp.asarray(np.random.default_rng(1).normal(size=SHAPE), jnp.float32)


def test_four_orders_are_undone():
    x: Any = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    sequences = cross_scan(x)
    assert sequences.shape == (4, 2, 12, 5)
    np.testing.assert_array_equal(sequences[0], x.reshape(2, 12, 5))
    np.testing.assert_array_equal(sequences[1], x.transpose(0, 2, 1, 3).reshape(2, 12, 5))
    np.testing.assert_array_equal(sequences[2:], np.asarray(sequences)[:2, :, ::-1])
    np.testing.assert_allclose(cross_merge(sequences, (3, 4)), 4 * x, rtol=1e-6)


def test_without_its_path_it_is_vmamba(variables: Any):
    params, state = variables
    plain = {name: each for name, each in params.items() if not name.startswith("residual")}
    vmamba = TOWER.clone(residual=False)
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(
        jnp.shape, abstract_variables(vmamba, SHAPE)[0]
    )
    zero = {**plain, "residual1": jax.tree.map(jnp.zeros_like, params["residual1"])}
    ours, theirs = (
        run(TOWER, (zero, state), image()),
        run(vmamba, (plain, state), image()),
    )
    for site, value in theirs.items():
        np.testing.assert_array_equal(ours[site], value, err_msg=site)
    # And the path is there: the largest of four neighbours, by a 1 x 1 convolution.
    full = run(TOWER, variables, image())
    np.testing.assert_array_equal(full["block00"], theirs["block00"])
    assert np.abs(full["block01"] - theirs["block01"]).max() > 0.1
    drawn = abstract_variables(TOWER.clone(residual_zero_init=True), SHAPE)[0]
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)


def test_sites_and_layers(variables: Any):
    tap = Tap(lambda name, x: 0 * x if name == "block01" else x)
    out = run(TOWER, variables, image(), tap=tap)
    shapes = {site: x.shape[1:] for site, x in out.items()}
    assert shapes["stem"] == shapes["block00"] == (3, 5, 8)
    assert shapes["block01"] == shapes["map"] == (2, 3, 16)
    assert not np.any(out["block01"])
    np.testing.assert_array_equal(out["logits"][0], out["logits"][1])
    names = ("patch_embed", "block00", "merge1", "merge1_norm", "residual1", "block01", "norm")
    assert [layers_above(TOWER, [name]) for name in names] == [3, 2, 1, 1, 1, 1, 1]
    assert layers_above(TOWER, ["head"]) == 0


def test_variants_have_vmambas_parameters_and_arithmetic():
    """22 and 44 million in VMamba's first table; the paths add three matrices and biases.

    5.6 and 11.2 GFLOPs are VMamba's after its count of scans was mended: nine operations per state
    and position, of which ``count`` sees the product with C. The residual paths add 0.04.
    """
    tower = ResVMamba(depths=(2, 2, 2, 2), num_classes=1000, sequential=True)
    params, state = abstract_variables(tower, (1, 224, 224, 3))
    variables: Any = {"params": dict(params), **state}
    call = jax.jit(lambda variables, x: tower.apply(variables, x)[1])
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)

    def products(site: str) -> float:
        return count(lambda variables, x: call(variables, x)[site], variables, image) / 2

    paths = [params.pop(f"residual{i}") for i in (1, 2, 3)]
    widths, sides = (96, 192, 384, 768), (56, 28, 14, 7)
    assert count_params(paths) == sum(2 * c * c + 2 * c for c in widths[:3])
    on_paths = sum(2 * c * c * (side // 2) ** 2 for c, side in zip(widths, sides[:3], strict=False))
    states = [4 * 16 * 2 * c * side**2 for c, side in zip(widths, sides, strict=True)]
    two_each, whole = count_params(params), products("logits") - on_paths
    blocks = [count_params(params[f"block0{2 * i + 1}"]) for i in range(4)]
    cost = products("block05") - products("block04")
    published: Any = (("T", 22.9, 5.6), ("S", 44.4, 11.2))
    for variant, millions, giga in published:
        depths = DEPTHS[variant]
        assert (depths[0], depths[1], depths[3]) == (2, 2, 2)
        more = sum((depth - 2) * n for depth, n in zip(depths, blocks, strict=True))
        assert (two_each + more) / 1e6 == pytest.approx(millions, abs=0.05)
        scans = 8 * sum(depth * n for depth, n in zip(depths, states, strict=True))
        flops = whole + (depths[2] - 2) * cost + scans
        assert flops / 1e9 == pytest.approx(giga, abs=0.05)


def test_images_that_the_patch_does_not_divide_are_named():
    with pytest.raises(ValueError, match="image of 7x8 is not divisible by the patch 2x2"):
        abstract_variables(TOWER, (1, 7, 8, 3))

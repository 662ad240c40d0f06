"""ULSAM: maps sum to 1 per group, kernels have 2 C weights, MobileNet-V1 its published size."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.ulsam.attention import SubspaceAttention
from papers.ulsam.method import MobileNetV1, MobileNetV2
from tests.models.tower_cases import abstract_variables, quick_jit, random_variables, run
from tests.tiny import filled
from vision.train.flops import count
from vision.train.tower import count_params

MAP = np.random.default_rng(0).normal(size=(2, 3, 5, 8)).astype(np.float32)
# 0 and 1: the network's own order of layers, cut short.
SMALL: Any = {"layers": ((32, 1), (32, 1)), "width_multiplier": 0.25, "stride": 1}


def attended(groups: int) -> tuple[Any, Any]:
    module = SubspaceAttention(groups)
    init = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.asarray(MAP), False))
    return module, filled(init)


def numpy_attention(v: Any, x: np.ndarray, groups: int) -> np.ndarray:
    """Group by group, position by position."""
    params, stats = v["params"], v["batch_stats"]

    def norm(y: np.ndarray, name: str, at: slice) -> np.ndarray:
        p, s = params[f"{name}_norm"], stats[f"{name}_norm"]
        y = (y - s["mean"][at]) / np.sqrt(s["var"][at] + 1e-5) * p["scale"][at] + p["bias"][at]
        return np.maximum(y, 0)

    size, (rows, columns) = x.shape[-1] // groups, x.shape[1:3]
    out = np.empty((*x.shape[:3], groups))
    for g in range(groups):
        at = slice(g * size, (g + 1) * size)
        first = params["depthwise"]
        y = norm(x[..., at] * first["kernel"][0, 0, 0, at] + first["bias"][at], "depthwise", at)
        pooled = np.empty_like(y)
        for i in range(rows):
            for j in range(columns):
                window = y[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
                pooled[:, i, j] = window.max((1, 2))
        second, one = params["pointwise"], slice(g, g + 1)
        z = pooled @ second["kernel"][0, 0, :, one] + second["bias"][one]
        z = np.exp(norm(z, "pointwise", one)[..., 0])
        out[..., g] = z / z.sum((1, 2), keepdims=True)
    return out


def test_every_group_has_its_map_over_the_positions():
    module, variables = attended(2)
    y, maps = quick_jit(module.apply, static_argnums=2)(variables, MAP, False)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(maps, numpy_attention(variables, MAP, 2), atol=1e-5)
    np.testing.assert_allclose(y, MAP * (1 + np.repeat(maps, 4, -1)), rtol=1e-5)


def test_kernels_have_two_weights_per_channel_and_none_is_the_mean():
    for groups in (1, 4, 8):
        module, variables = attended(groups)
        kernels = [variables["params"][name]["kernel"] for name in ("depthwise", "pointwise")]
        assert sum(kernel.size for kernel in kernels) == 2 * MAP.shape[-1]
    silent = jax.tree.map(jnp.zeros_like, variables["params"]["pointwise_norm"])
    variables = {**variables, "params": {**variables["params"], "pointwise_norm": silent}}
    y, _ = quick_jit(module.apply, static_argnums=2)(variables, MAP, False)
    np.testing.assert_allclose(y, MAP * (1 + 1 / 15), rtol=1e-5)


def test_mobilenet_has_its_published_size_and_attention_saves_a_layer():
    # Howard et al., table 8: 4.2 million.
    params = {
        at: abstract_variables(MobileNetV1(attention=at, num_classes=1000), (1, 32, 32, 3))[0]
        for at in ((), (8,))
    }
    assert count_params(params[()]) == 4_231_976
    saved = count_params(params[()]) - count_params(params[(8,)])
    # 9 x 512 + 512^2 and two norms, for 2 x 512, two biases and two norms.
    assert saved == 512 * (9 + 512) + 4 * 512 - (2 * 512 + 512 + 4 + 2 * 512 + 2 * 4)


def test_mobilenet_has_its_published_products_and_attention_saves_a_layers():
    # Howard et al., table 8: 569 million.
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    products = {}
    for at in ((), (8,)):
        tower = MobileNetV1(attention=at, num_classes=1000)
        params, state = abstract_variables(tower, image.shape)
        names: Any = {"params": params, **state}
        products[at] = count(lambda v, x, tower=tower: tower.apply(v, x), names, image) / 2
    assert abs(products[()] / 1e6 - 569) < 0.5
    saved = products[()] - products[(8,)]
    assert saved == 14 * 14 * (512 * (9 + 512) - 2 * 512)


def test_mobilenet_v2_without_two_layers_is_an_eighth_smaller():
    # The headline: 13 % fewer parameters and FLOPs; and 25 %.
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    sizes = {}
    for at in ((), (12, 15), (11, 12, 14, 15)):
        tower = MobileNetV2(attention=at, num_classes=1000)
        params, state = abstract_variables(tower, image.shape)
        names: Any = {"params": params, **state}
        products = count(lambda v, x, tower=tower: tower.apply(v, x), names, image) / 2
        sizes[at] = np.array([count_params(params), products])
    assert sizes[()][0] == 3_504_872
    np.testing.assert_allclose(1 - sizes[(12, 15)] / sizes[()], (0.125, 0.127), atol=0.001)
    np.testing.assert_allclose(1 - sizes[(11, 12, 14, 15)] / sizes[()], 0.254, atol=0.006)


def test_attention_stands_in_the_place_of_a_layer_or_after_it():
    shape = (2, 6, 6, 3)
    x: Any = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    places: Any = (("replaces", 16), ("after", 8))
    for place, width in places:
        fields = {**SMALL, "layers": ((64, 1), (64, 1)) if place == "replaces" else SMALL["layers"]}
        tower = MobileNetV1(attention=(1,), groups=2, place=place, num_classes=3, **fields)
        out = run(tower, random_variables(tower, shape), x)
        assert out["block01"].shape == (2, 6, 6, width)
        assert out["block01/attention"].shape == (2, 6, 6, 2)
        if place == "replaces":
            maps = np.repeat(out["block01/attention"], 8, -1)
            np.testing.assert_allclose(out["block01"], out["block00"] * (1 + maps), rtol=1e-5)


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="attention=13, but there are 13 layers"):
        MobileNetV1(attention=(13,))
    with pytest.raises(ValueError, match="layer 5 makes 512 channels of 256 with stride 2"):
        MobileNetV1(attention=(5,))
    with pytest.raises(ValueError, match="groups=3 does not divide the 512"):
        abstract_variables(MobileNetV1(attention=(8,), groups=3), (1, 32, 32, 3))

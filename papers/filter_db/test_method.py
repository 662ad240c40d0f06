"""Filters: scale changes nothing, rank one has no entropy, layers come as they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.filter_db.compare import main, render
from papers.filter_db.evaluator import FilterStatistics
from papers.filter_db.filters import layers_of
from papers.filter_db.method import (
    FilterError,
    Layer,
    entropy,
    orthogonality,
    quality,
    random_entropy,
    scaled,
    shifts,
    sparsity,
)
from vision.config.cli import run_main
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.models.convnext import ConvNeXt
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

RNG = np.random.default_rng(0)


def layer(inputs: int = 8, outputs: int = 16, scale: float = 1.0, name: str = "a") -> Layer:
    kernel = scale * RNG.normal(size=(3, 3, inputs, outputs))
    return Layer(name, kernel.astype(np.float32), 0.0)


def test_rows_are_the_filters_of_pairs():
    one = layer(2, 3)
    assert one.filters.shape == (6, 9)
    np.testing.assert_array_equal(one.filters[1 * 3 + 2], one.kernel[:, :, 1, 2].reshape(9))


def test_the_scale_of_a_layer_changes_nothing():
    one = layer()
    other = Layer("b", 37 * one.kernel, 0.0)
    for name, value in vars(quality(one)).items():
        assert getattr(quality(other), name) == pytest.approx(value, rel=1e-5)
    assert shifts([scaled([one]), scaled([other])]).distance.max() < 1e-6


def test_entropy_of_known_variances():
    line = np.outer(RNG.normal(size=50), RNG.normal(size=9))
    assert entropy(line) == pytest.approx(0, abs=1e-9)
    assert entropy(np.tile(RNG.normal(size=9), (20, 1))) == 0  # all the same: no variance
    every = np.concatenate([np.eye(9), -np.eye(9)])
    assert entropy(every) == pytest.approx(np.log10(9))
    two = np.zeros((4, 9))
    two[:2, 0], two[2:, 1] = (1, -1), (1, -1)
    assert entropy(two) == pytest.approx(np.log10(2))


@pytest.mark.parametrize("count", [64, 256, 1024])
def test_random_filters_are_at_the_threshold(count: int):
    ratios = [entropy(RNG.normal(size=(count, 9))) / random_entropy(count) for _ in range(20)]
    assert 0.97 < min(ratios) <= max(ratios) < 1.06
    assert random_entropy(10**6) == pytest.approx(1.2618 - 0.31051, abs=1e-4)


def test_sparsity_counts_filters_near_zero():
    filters = RNG.uniform(0.5, 1, (40, 9))
    filters[::2] *= 0.001
    assert sparsity(filters) == 0.5
    assert sparsity(np.zeros((4, 9))) == 1


def test_orthogonality_of_equal_and_of_unrelated_outputs():
    assert orthogonality(np.ones((3, 3, 2, 5))) == pytest.approx(0)
    apart = np.zeros((3, 3, 1, 9))
    apart[..., 0, :] = np.eye(9).reshape(3, 3, 9)
    assert orthogonality(apart) == 1
    assert np.isnan(orthogonality(np.ones((3, 3, 4, 1))))


def test_shifts_are_those_of_the_equation():
    sets = [RNG.normal(size=(400, 9)), RNG.normal(size=(300, 9)) * 1.5 + 0.2]
    found = shifts(sets)
    every = np.concatenate(sets)
    values, vectors = np.linalg.eigh(np.cov(every.T, bias=True))
    share = values[::-1] / values.sum()
    np.testing.assert_allclose(found.share, share, rtol=1e-8)
    wanted = 0.0
    for i in range(9):
        a, b = ((each - every.mean(0)) @ vectors[:, ::-1][:, i] for each in sets)
        edges = np.histogram_bin_edges(np.concatenate([a, b]), 70)
        p, q = (np.histogram(x, edges)[0] / len(x) for x in (a, b))
        p, q = (np.where(x > 0, x, np.finfo(np.float32).eps) for x in (p, q))
        p, q = p / p.sum(), q / q.sum()
        wanted += share[i] * np.sum((p - q) * np.log(p / q))
    # A filter that lies on an edge may fall to either side with the sign of a component.
    assert found.distance[0, 1] == pytest.approx(wanted, rel=0.02)
    np.testing.assert_allclose(found.distance, found.distance.T)
    np.testing.assert_array_equal(np.diag(found.distance), 0)
    gram = found.components.reshape(9, 9) @ found.components.reshape(9, 9).T
    np.testing.assert_allclose(gram, np.eye(9), atol=1e-9)


class Odd(nn.Module):
    """Its modules are called in another order than their names have; one is never called."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="z")(x)
        x = nn.Conv(4, (3, 3), feature_group_count=4, name="a")(x)
        if self.is_initializing():
            nn.Conv(4, (3, 3), name="unused")(x)
        return nn.Conv(2, (1, 1), name="m")(x)


def traced(model: Any, size: int = 32) -> tuple[Any, Variables, dict[str, Any]]:
    batch = {"image": np.zeros((2, size, size, 3), np.float32)}
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(batch["image"])))
    drawn = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), shapes)
    state = {name: x for name, x in drawn.items() if name != "params"}

    def predict(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        params = {"params": variables.params["net"], **variables.model_state.get("net", {})}
        return {"out": model.apply(params, batch["image"])}

    return predict, Variables({"net": drawn["params"]}, {"net": state}, {}), batch


def test_layers_come_in_the_order_of_their_calls():
    layers = layers_of(*traced(Odd()))
    assert [(x.name, x.depth) for x in layers] == [("net/z", 0.0), ("net/a", 1.0)]
    assert [len(x.filters) for x in layers] == [12, 4]  # depthwise: one per channel


def test_a_resnet_has_its_blocks_and_others_say_what_they_have():
    layers = layers_of(*traced(ResNet(depth=18, width_multiplier=0.125)))
    names = [x.name for x in layers]
    assert len(names) == 16
    assert names == sorted(names)
    with pytest.raises(FilterError, match=r"no 3x3 convolution; it has .* of 7x7"):
        layers_of(*traced(ConvNeXt(depths=(1, 1), dims=(4, 8))))
    with pytest.raises(FilterError, match="no 3x3 convolution; it has"):
        layers_of(*traced(ViT(width=8, depth=1, heads=2, patch=8)))


def test_the_evaluator_counts_planted_layers():
    predict, variables, _ = traced(Odd(), 8)
    params = variables.params["net"]
    direction = RNG.normal(size=(3, 3, 1, 1))
    params["z"]["kernel"] = (direction * RNG.normal(size=(1, 1, 3, 4))).astype(np.float32)
    source = Arrays({"image": np.zeros((8, 8, 8, 3), np.float32)}, "made")
    evaluator = FilterStatistics(EvalData(source, batch_size=8, threads=0))
    mesh = Mesh().build(jax.devices()[:1])
    numbers, figures = evaluate(evaluator, predict, variables, 1, mesh)
    assert (numbers["filters"], numbers["layers"]) == (16, 2)
    assert numbers["degenerate"] == 0.5  # the layer whose filters are multiples of one
    table: Any = figures["layers"]
    assert table.rows[0][0] == "net/z"
    assert table.rows[0][3] == pytest.approx(0, abs=1e-6)


def test_the_page_has_all_models_and_bad_ones_are_named(capfd: pytest.CaptureFixture[str]):
    text = render({"one": [layer(name="first")], "two <b>": [layer(4, 4, name="second")]})
    assert "two &lt;b&gt;" in text
    assert text.count("Principal component ") == 9
    assert "2 models · 144 filters" in text
    with pytest.raises(FilterError, match="none of 1 3x3 convolutions has 4 filters"):
        render({"one": [layer(1, 2)]})
    with pytest.raises(FilterError, match="a set of filters is empty"):
        shifts([np.zeros((0, 9))])
    with pytest.raises(FilterError, match="all filters are the same"):
        shifts([np.ones((5, 9))])
    with pytest.raises(FilterError, match="3 filters are too few"):
        random_entropy(3)
    assert run_main(main, ["--models=a,a", "--out=x.html"]) == 2
    assert "each once" in capfd.readouterr().err


def test_the_zoo_is_compared(tmp_path: Path):
    assert run_main(main, ["--models=zoo:emoji_cnn", f"--out={tmp_path / 'f.html'}"]) == 0
    assert "model/block03/conv2" in (tmp_path / "f.html").read_text()

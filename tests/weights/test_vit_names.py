from __future__ import annotations

import functools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.ndimage

from vision.models.vit import ViT
from vision.train.tower import forward, initialise
from vision.weights.families import vit
from vision.weights.fit import fit_patches, fit_positions, fit_positions_by_corners
from vision.weights.mapping import WeightsError, load, misfits, save
from vision.weights.names import names_of
from vision.weights.reader import open_weights

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "weights" / "vit"
Tiny = functools.partial(ViT, width=16, depth=2, heads=2, patch=4, mlp_dim=32)
CLIP = {"class_position": True, "pre_norm": True, "norm_epsilon": 1e-5, "activation": "quick_gelu"}
GAP = {"pool": "mean", "class_token": True, "registers": 1, "norm_pooled": True}
SWIGLU = {"class_position": True, "layer_scale": 1.0, "activation": "swiglu"}

CASES = {
    "timm_augreg": ("timm", Tiny(num_classes=5, class_position=True)),
    "timm_gap": ("timm", Tiny(num_classes=5, **GAP)),
    "timm_dinov2_reg4": ("timm", Tiny(registers=4, layer_scale=1.0, scan=False)),
    "timm_dinov2_swiglu": ("timm", Tiny(**{**SWIGLU, "mlp_dim": 24})),
    "timm_siglip": ("timm", Tiny(pool="map", num_classes=5)),
    "timm_clip": ("timm", Tiny(num_classes=5, **CLIP)),
    "open_clip": ("open_clip", Tiny(**CLIP)),
    "transformers_clip": ("transformers", Tiny(**CLIP)),
    "transformers_siglip": (
        "transformers",
        Tiny(pool="map", activation="gelu_tanh"),
    ),
    "transformers_vit": (
        "transformers",
        Tiny(num_classes=5, class_position=True, norm_epsilon=1e-12),
    ),
    "transformers_dinov2": (
        "transformers",
        Tiny(class_position=True, layer_scale=1.0, registers=3),
    ),
    "transformers_dinov2_swiglu": ("transformers", Tiny(**{**SWIGLU, "mlp_dim": 48})),
    "big_vision": ("big_vision", Tiny(pool="map", activation="gelu_tanh")),
    "big_vision_first": (
        "big_vision",
        Tiny(num_classes=5, class_position=True, activation="gelu_tanh"),
    ),
}


@functools.cache
def golden(case):
    """Their weights and what they computed."""
    file = GOLDENS / f"{case}.safetensors"
    tensors = {name: np.asarray(t[...]) for name, t in open_weights(file).items()}
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k[:8] == "weights/"}
    if file.with_suffix(".npz").exists():
        weights = {k: v[...] for k, v in open_weights(file.with_suffix(".npz")).items()}
    return weights, {k: v for k, v in tensors.items() if k[:8] != "weights/"}


def outputs(tower, tree, images):
    def apply(params, images):
        out = forward(tower, params, {}, images, train=False)[1]
        return {k: v for k, v in out.items() if k in ("block00", "block01", "embedding", "logits")}

    options = {"xla_backend_optimization_level": 0}
    return jax.jit(apply, compiler_options=options)(tree["params"], images)


def test_positions_of_big_vision_are_zoomed_as_scipy_does():
    pos = np.random.default_rng(0).standard_normal((4, 4, 3)).astype(np.float32)
    for grid in ((6, 6), (6, 3), (4, 4), (3, 7)):
        factors = (grid[0] / 4, grid[1] / 4, 1)
        wanted = np.asarray(scipy.ndimage.zoom(pos, factors, order=1))
        found = fit_positions_by_corners(pos, (*grid, 3))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    names = vit.big_vision_vit(Tiny()).entries
    (entry,) = [entry for entry in names if entry.ours == "params.pos_embed"]
    assert entry.fit is fit_positions_by_corners


def target_of(tower, shape=(2, 16, 16, 3)):
    params, state = jax.eval_shape(
        functools.partial(initialise, tower),
        jax.random.key(0),
        jax.ShapeDtypeStruct(shape, np.float32),
    )
    tree = {"params": params, "model_state": dict(state)}
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers(case):
    """Blocks, embedding and logits are theirs; written back, the tensors are bit for bit."""
    library, tower = CASES[case]
    weights, expected = golden(case)
    names = names_of(library, tower, weights)
    tree = load(names, weights, target_of(tower), source=case)
    out = outputs(tower, tree, expected["images"])
    compared = expected.keys() & out.keys()
    assert compared >= {"block00", "block01"}
    assert compared & {"embedding", "logits"}
    for name in compared:
        error = np.abs(out[name] - expected[name]).max() / np.abs(expected[name]).max()
        assert error < 1e-4, (name, error)
    back = save(names, tree)
    unused = {n for n in weights if n not in back}
    assert all(any(re.fullmatch(p, n) for p in names.ignored) for n in unused)
    assert back.keys() <= weights.keys()
    for name, array in back.items():
        assert array.dtype == weights[name].dtype
        np.testing.assert_array_equal(array, weights[name], err_msg=name)


def test_a_classifier_of_two_vectors_is_told_apart():
    tower = Tiny(class_position=True, layer_scale=1.0, registers=3, num_classes=5)
    tensors = {"classifier.weight": np.zeros((5, 32), np.float32), "x.lambda1": np.zeros(1)}
    (entry,) = [
        entry
        for entry in names_of("transformers", tower, tensors).entries
        if entry.ours == "params.head.kernel"
    ]
    leaves = {entry.ours: np.zeros((16, 5), np.float32)}
    (problem,) = misfits([entry], tensors, leaves)
    assert "ForImageClassification reads the mean of the patches" in problem
    assert "init_from.head='new'" in problem
    assert misfits([entry], {"classifier.weight": np.zeros((5, 16), np.float32)}, leaves) == []


def test_registers_with_positions_are_told_apart():
    tower = Tiny(registers=4, class_position=True)
    tensors = {"pos_embed": np.zeros((1, 1 + 4 + 16, 16), np.float32)}
    entries = [e for e in names_of("timm", tower, tensors).entries if e.ours == "params.pos_embed"]
    (problem,) = misfits(entries, tensors, {"params.pos_embed": np.zeros((4, 4, 16), np.float32)})
    assert "and 1 before them" in problem
    assert "register_positions=True those of registers, as timm's so150m" in problem


def test_every_field_matters():
    """A tower of another family computes something else from the same weights."""
    weights, expected = golden("timm_clip")
    tower = Tiny(num_classes=5, **{**CLIP, "activation": "gelu"})
    tree = load(vit.timm_vit(tower), weights, target_of(tower))
    out = outputs(tower, tree, expected["images"])
    difference = np.abs(out["logits"] - expected["logits"]).max()
    assert difference > 1e-3 * np.abs(expected["logits"]).max()


def test_other_grids_and_patches():
    """As timm resamples them; the same values where the sizes agree."""
    tensors = {n: t[...] for n, t in open_weights(GOLDENS / "resampled.safetensors").items()}
    pos = tensors["pos"].reshape(4, 4, 8)
    wanted = tensors["pos_6x3"].reshape(6, 3, 8)
    np.testing.assert_allclose(fit_positions(pos, (6, 3, 8)), wanted, atol=1e-5)
    np.testing.assert_array_equal(fit_positions(pos, pos.shape), pos)
    kernel = tensors["patches"].transpose(2, 3, 1, 0)
    for size in ((7, 6), (3, 2)):
        wanted = tensors[f"patches_{size[0]}x{size[1]}"].transpose(2, 3, 1, 0)
        np.testing.assert_allclose(fit_patches(kernel, wanted.shape), wanted, atol=1e-4)


def test_loading_at_another_size():
    weights, _ = golden("timm_augreg")
    tower = Tiny(num_classes=5, class_position=True, patch=6)
    tree = load(vit.timm_vit(tower), weights, target_of(tower, (1, 18, 30, 3)))
    assert tree["params"]["pos_embed"].shape == (3, 5, 16)
    grid = weights["pos_embed"][0, 1:].reshape(4, 4, 16)
    np.testing.assert_array_equal(tree["params"]["pos_embed"], fit_positions(grid, (3, 5, 16)))
    np.testing.assert_array_equal(tree["params"]["cls_pos_embed"][0, 0], weights["pos_embed"][0, 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"pos_embed \(1, 17, 16\).*class_position=True has one"),
        ({"class_position": True, "num_classes": 7}, r"head.* gives .*params\.head\..*7"),
        ({"class_position": True, "width": 24}, r"params\.\S+ has shape"),
        ({"class_position": True, "depth": 3}, r"blocks\.2\.\S+ is missing"),
        ({"class_position": True, "depth": 1}, r"blocks\.1\.\S+ of shape .* has no place"),
        ({"class_position": True, "registers": 2}, "reg_token is missing"),
        ({"class_position": True, "layer_scale": 1.0}, r"ls1\.gamma is missing"),
        ({"class_position": True, "norm_pooled": True}, "norm"),
    ],
)
def test_another_tower(fields, message):
    weights, _ = golden("timm_augreg")
    tower = Tiny(**{"num_classes": 5, **fields})
    with pytest.raises(WeightsError, match=message) as caught:
        load(vit.timm_vit(tower), weights, target_of(tower), source="x.safetensors")
    assert str(caught.value).startswith("x.safetensors: ")

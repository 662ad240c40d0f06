from __future__ import annotations

from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vision.weights.mapping import (
    CONV,
    LINEAR,
    SAME,
    MapEntry,
    Names,
    WeightsError,
    interleaved,
    load,
    part,
    qkv,
    save,
)
from vision.weights.reader import open_weights, write_safetensors

RNG = np.random.default_rng(0)
DEPTH = 3


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


THEIRS = {
    **{f"b.{i}.qkv.weight": draw(24, 8) for i in range(DEPTH)},
    **{f"b.{i}.fc.weight": draw(16, 8) for i in range(DEPTH)},
    "conv.weight": draw(6, 3, 5, 2),
    "depthwise.weight": draw(6, 1, 3, 3),
    "kv": draw(8, 4),
    "bn.running_mean": draw(6),
    "logit_scale": np.float32(4.6).reshape(()),
}
LAYERS = [
    entry
    for i in range(DEPTH)
    for entry in (
        MapEntry("params.blocks.qkv.kernel", (f"b.{i}.qkv.weight",), qkv(2), i),
        MapEntry("params.blocks.fc.kernel", (f"b.{i}.fc.weight",), LINEAR, i),
    )
]
NAMES = Names(
    (
        *LAYERS,
        MapEntry("params.conv.kernel", ("conv.weight",), CONV),
        MapEntry("params.depthwise.kernel", ("depthwise.weight",), CONV),
        MapEntry("params.k.kernel", ("kv",), part("first half", 0, None, 4, LINEAR)),
        MapEntry("params.v.kernel", ("kv",), part("second half", 0, 4, None, LINEAR)),
        MapEntry("model_state.batch_stats.bn.mean", ("bn.running_mean",)),
        MapEntry("params.scale", ("logit_scale",)),
    ),
    {r".*\.num_batches_tracked": "a counter"},
)


def target(dtype: Any = np.float32, **sharding):
    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, dtype, **sharding)

    return {
        "params": {
            "blocks": {
                "qkv": {"kernel": leaf(DEPTH, 8, 24)},
                "fc": {"kernel": leaf(DEPTH, 8, 16)},
            },
            "conv": {"kernel": leaf(5, 2, 3, 6)},
            "depthwise": {"kernel": leaf(3, 3, 1, 6)},
            "k": {"kernel": leaf(4, 4)},
            "v": {"kernel": leaf(4, 4)},
            "scale": leaf(),
        },
        "model_state": {"batch_stats": {"bn": {"mean": leaf(6)}}},
    }


def test_there_and_back():
    tree = load(NAMES, THEIRS, target())
    params = tree["params"]
    np.testing.assert_array_equal(
        params["conv"]["kernel"][4, 1, 2, 5], THEIRS["conv.weight"][5, 2, 4, 1]
    )
    np.testing.assert_array_equal(params["k"]["kernel"], THEIRS["kv"][:4].T)
    np.testing.assert_array_equal(params["blocks"]["fc"]["kernel"][2], THEIRS["b.2.fc.weight"].T)
    assert params["scale"].shape == ()
    back = save(NAMES, tree)
    assert back.keys() == THEIRS.keys()
    for name, array in back.items():
        assert (array.shape, array.dtype) == (THEIRS[name].shape, THEIRS[name].dtype)
        np.testing.assert_array_equal(array, THEIRS[name])


def test_heads_stand_together():
    """Columns of ours are q, k, v of the first head, then of the second."""
    heads, width = 2, 8
    q, k, v = (np.full((width, 3), i) + np.repeat([[0], [10]], 4, 0) for i in range(3))
    together = qkv(heads).read([np.concatenate([q, k, v])])
    assert together[0].tolist() == [x for h in (0, 10) for i in range(3) for x in [h + i] * 4]
    np.testing.assert_array_equal(qkv(heads, parts=3).read([q, k, v]), together)
    for got, wanted in zip(qkv(heads, parts=3).write(together), (q, k, v), strict=True):
        np.testing.assert_array_equal(got, wanted)
    gates = interleaved(2, 5).read([np.repeat([0, 1], 5)])
    assert gates.tolist() == [0, 1] * 5


def test_parts_of_a_larger_model():
    tower = Names(
        (
            MapEntry("params.head.kernel", ("head.weight",), LINEAR),
            MapEntry("model_state.batch_stats.bn.mean", ("bn.mean",)),
        ),
        {r"pos\.ids": "numbers"},
    ).within("image", "visual.")
    assert [(e.ours, e.theirs[0]) for e in tower.entries] == [
        ("params.image.head.kernel", "visual.head.weight"),
        ("model_state.batch_stats.image.bn.mean", "visual.bn.mean"),
    ]
    both = tower + Names((MapEntry("params.scale", ("logit_scale",)),))
    tensors = {
        "visual.head.weight": draw(2, 3),
        "visual.bn.mean": draw(3),
        "visual.pos.ids": np.arange(3),
        "logit_scale": draw(),
    }
    leaf = jax.ShapeDtypeStruct
    tree = {
        "params": {"image": {"head": {"kernel": leaf((3, 2), np.float32)}}, "scale": leaf((), "f")},
        "model_state": {"batch_stats": {"image": {"bn": {"mean": leaf((3,), "f")}}}},
    }
    assert save(both, load(both, tensors, tree)).keys() == tensors.keys() - {"visual.pos.ids"}


def without(name):
    return {k: v for k, v in THEIRS.items() if k != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without("b.1.fc.weight"), r"tensor b\.1\.fc\.weight is missing; params\.blocks\.fc"),
        ({**THEIRS, "extra": draw(3)}, r"tensor extra of shape \(3,\) has no place"),
        ({**THEIRS, "kv": draw(9, 4)}, r"kv \(9, 4\) gives shape \(4, 5\), but params\.v"),
        ({**THEIRS, "b.0.qkv.weight": draw(25, 8)}, r"b\.0\.qkv\.weight \(25, 8\): not laid out"),
        ({**THEIRS, "b.0.fc.weight": draw(2, 16, 8)}, r"b\.0\.fc\.weight \(2, 16, 8\): not laid"),
        ({**THEIRS, "kv": np.ones((8, 4), np.int8)}, "tensor kv is int8, but .* quantised"),
    ],
)
def test_what_does_not_fit(tensors, message):
    with pytest.raises(WeightsError, match=message) as caught:
        load(NAMES, tensors, target(), source="x.safetensors")
    assert str(caught.value).startswith("x.safetensors: ")


def test_nothing_is_read_before_everything_fits():
    class Shape:
        dtype = np.dtype(np.float32)

        def __init__(self, shape):
            self.shape = shape

        def __getitem__(self, index):
            raise AssertionError("data was read")

    tensors = {name: Shape(array.shape) for name, array in THEIRS.items()}
    with pytest.raises(WeightsError, match="extra"):
        load(NAMES, {**tensors, "extra": Shape((1,))}, target())
    with pytest.raises(AssertionError, match="data was read"):
        load(NAMES, tensors, target())


def test_ours_that_nothing_fills():
    tree = target()
    tree["params"]["head"] = np.arange(3)
    with pytest.raises(WeightsError, match=r"nothing fills params\.head of shape \(3,\)"):
        load(NAMES, THEIRS, tree)
    kept = load(NAMES, THEIRS, tree, kept={r"params\.head": "new", r"params\.conv\.": "new too"})
    assert kept["params"]["head"].tolist() == [0, 1, 2]
    assert kept["params"]["conv"]["kernel"] is tree["params"]["conv"]["kernel"]
    with pytest.raises(WeightsError, match=r"params\.head has no name there"):
        save(NAMES, load(NAMES, THEIRS, tree, kept={"head": "new"}))
    del tree["params"]["conv"]
    with pytest.raises(WeightsError, match=r"this model has no params\.conv\.kernel"):
        load(NAMES, THEIRS, tree, kept={"head": "new"})
    doubled = Names((*NAMES.entries, MapEntry("params.head", ("kv",), SAME)))
    tree = load(NAMES, THEIRS, target())
    tree["params"]["head"] = draw(8, 4)
    with pytest.raises(WeightsError, match="entries of the name map write tensor kv"):
        save(doubled, tree)


def test_number_formats():
    halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in THEIRS.items()}
    for theirs, dtype in ((halves, np.float32), (THEIRS, ml_dtypes.bfloat16)):
        tree = load(NAMES, theirs, target(dtype))
        assert {x.dtype for x in jax.tree.leaves(tree)} == {np.dtype(dtype)}
        np.testing.assert_array_equal(
            tree["params"]["k"]["kernel"], halves["kv"][:4].T.astype(dtype)
        )


def test_onto_a_mesh(tmp_path, monkeypatch):
    """Every device holds its part only, and only rows that devices hold are read."""
    file = tmp_path / "model.safetensors"
    write_safetensors(file, THEIRS)
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(4), ("fsdp",))
    split = {
        "blocks.qkv": P(None, None, "fsdp"),
        "blocks.fc": P(None, None, "fsdp"),
        "k.": P("fsdp"),
    }

    def place(path, leaf):
        name = ".".join(str(key.key) for key in path[1:])
        spec = next((s for start, s in split.items() if name.startswith(start)), P())
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    placed = jax.tree_util.tree_map_with_path(place, target())
    sizes = []
    fromfile = np.fromfile

    def counted(*args, **kwargs):
        sizes.append(args[2])
        return fromfile(*args, **kwargs)

    monkeypatch.setattr(np, "fromfile", counted)
    tree = load(NAMES, open_weights(file), placed)
    # A row block of each kernel of fc, whose columns with us are rows in the file.
    assert sizes.count(4 * 8 * 4) >= DEPTH * 4
    assert 16 * 8 * 4 not in sizes
    kernel = tree["params"]["blocks"]["fc"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (DEPTH, 8, 4)
    plain = load(NAMES, THEIRS, target())
    jax.tree.map(np.testing.assert_array_equal, tree, plain)

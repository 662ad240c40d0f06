from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vision.data.batch_ops import (
    BatchRandomCrop,
    BatchRandomFlip,
    BatchValueRange,
    CutMix,
    Mixup,
    MixupCutMix,
    apply,
    cutmix_weight,
    mix,
)
from vision.data.ops import geometry, values

B, H, W, K = 8, 12, 16, 5


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.random((B, H, W, 3), np.float32)),
        "label": jnp.asarray(np.arange(B) % K, jnp.int32),
        "_mask": jnp.ones(B, bool),
        "_index": jnp.arange(B),
    }


compiled = functools.cache(jax.jit)
blend = jax.jit(functools.partial(mix, num_classes=K, image_key="image", label_key="label"))


def jitted(op, batch, seed: int = 0):
    return compiled(op)(batch, jax.random.key(seed))


def one_hot(batch) -> np.ndarray:
    return np.eye(K, dtype=np.float32)[np.asarray(batch["label"])]


MIXERS = [Mixup(K), CutMix(K), MixupCutMix(K)]


@pytest.mark.parametrize("op", MIXERS, ids=lambda op: type(op).__name__)
def test_mixing_keeps_label_mass_shapes_and_the_rest(op, batch):
    for seed in range(4):
        out = jitted(op, batch, seed)
        assert out["label"].shape == (B, K)
        assert out["label"].dtype == jnp.float32
        np.testing.assert_allclose(out["label"].sum(1), 1, rtol=1e-6)
        assert out["image"].shape == batch["image"].shape
        assert out["image"].dtype == jnp.float32
        np.testing.assert_array_equal(out["_index"], batch["_index"])
        np.testing.assert_array_equal(out["_mask"], batch["_mask"])


def test_probability_is_the_share_of_batches_mixed(batch):
    mixed = 0
    for seed in range(60):
        out = jitted(MixupCutMix(K, probability=0.3), batch, seed)
        same = np.array_equal(out["image"], batch["image"])
        if same:  # labels become soft all the same
            np.testing.assert_array_equal(out["label"], one_hot(batch))
        mixed += not same
    assert 8 <= mixed <= 29


def test_mix_with_full_or_no_weight_is_the_image_or_its_partner(batch):
    own = blend(batch, jnp.ones((H, W)))
    np.testing.assert_array_equal(own["image"], batch["image"])
    np.testing.assert_array_equal(own["label"], one_hot(batch))
    other = blend(batch, jnp.zeros((H, W)))
    np.testing.assert_array_equal(other["image"], np.roll(batch["image"], 1, axis=0))
    np.testing.assert_array_equal(other["label"], np.roll(one_hot(batch), 1, axis=0))


def test_mixup_is_one_convex_combination(batch):
    for seed in range(4):
        out = jitted(Mixup(K), batch, seed)
        share = float(out["label"][0, 0])  # labels 0 and 2 are partners of row 0
        image = np.asarray(batch["image"])
        np.testing.assert_allclose(
            out["image"], share * image + (1 - share) * np.roll(image, 1, axis=0), atol=1e-6
        )
        hot = one_hot(batch)
        np.testing.assert_allclose(
            out["label"], share * hot + (1 - share) * np.roll(hot, 1, axis=0), atol=1e-6
        )


def test_cutmix_label_share_is_the_area_that_was_pasted(batch):
    partner = np.roll(batch["image"], 1, axis=0)
    shares = []
    for seed in range(12):
        out = jitted(CutMix(K), batch, seed)
        pasted = (np.asarray(out["image"]) != np.asarray(batch["image"])).any(axis=(0, 3))
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted.sum() == len(rows) * len(columns)  # one box
        np.testing.assert_array_equal(out["image"][:, pasted], partner[:, pasted])
        share = 1 - pasted.mean()
        shares.append(share)
        hot = one_hot(batch)
        np.testing.assert_allclose(
            out["label"], share * hot + (1 - share) * np.roll(hot, 1, axis=0), atol=1e-6
        )
    assert np.std(shares) > 0.1


def test_distributions(batch):
    keys = jax.random.split(jax.random.key(0), 2000)
    lambdas = np.array([jitted(Mixup(K), batch, seed)["label"][0, 0] for seed in range(300)])
    assert abs(lambdas.mean() - 0.5) < 0.1
    assert abs(lambdas.var() - 1 / (4 * 1.4)) < 0.03  # variance of Beta(0.2, 0.2)
    own = jnp.linspace(0, 1, 2000)
    weights = jax.jit(jax.vmap(lambda k, own: cutmix_weight(k, own, (32, 32))))(keys, own)
    assert set(np.unique(weights)) == {0.0, 1.0}
    covered = 1 - np.asarray(weights).mean(axis=0)
    # Without the border a pixel is covered with probability 1/2; at the corner only a quarter
    # of the centres reach it.
    assert 0.3 < covered[16, 16] < 0.7
    assert covered[0, 0] < covered[16, 16] / 2


def test_switch_chooses_between_the_two(batch):
    cut = 0
    for seed in range(40):
        out = jitted(MixupCutMix(K), batch, seed)
        changed = (np.asarray(out["image"]) != np.asarray(batch["image"])).any(axis=(0, 3))
        if changed.all():  # mixup touches every pixel
            continue
        cut += 1
        assert changed.sum() == changed.any(1).sum() * changed.any(0).sum()
        assert float(out["label"][0, 0]) == pytest.approx(1 - changed.mean())
    assert 10 < cut < 30


@pytest.mark.parametrize("op", MIXERS, ids=lambda op: type(op).__name__)
def test_masked_rows_never_reach_valid_ones(op, batch):
    """Placeholders may hold anything: valid rows come out as if they were not there."""
    mask = jnp.asarray([True, False, True, True, False, False, True, True])
    dirty = {**batch, "_mask": mask}
    for seed in range(3):
        out = jitted(op, dirty, seed)
        poisoned = {
            **dirty,
            "image": jnp.where(mask[:, None, None, None], dirty["image"], 1e6),
            "label": jnp.where(mask, dirty["label"], 1),
        }
        again = jitted(op, poisoned, seed)
        valid = np.asarray(mask)
        np.testing.assert_array_equal(again["image"][valid], out["image"][valid])
        np.testing.assert_array_equal(again["label"][valid], out["label"][valid])
        np.testing.assert_array_equal(out["_mask"], mask)
        unpaired = valid & ~np.roll(valid, 1)
        np.testing.assert_array_equal(out["image"][unpaired], batch["image"][unpaired])
        np.testing.assert_array_equal(out["label"][unpaired], one_hot(batch)[unpaired])


def test_soft_labels_can_be_mixed_again_and_masks_are_optional(batch):
    bare = {"image": batch["image"], "label": batch["label"]}
    weight = jnp.full((H, W), 0.3)
    out = blend(blend(bare, weight), weight)
    np.testing.assert_allclose(out["label"].sum(1), 1, rtol=1e-6)
    assert set(out) == {"image", "label"}


def test_mixing_a_sharded_batch_changes_nothing(batch):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    masked = {**batch, "_mask": jnp.arange(B) != 3}
    weight = jnp.linspace(0, 1, H * W).reshape(H, W)
    whole = blend(masked, weight)
    split = {k: jax.device_put(v, NamedSharding(mesh, P("data"))) for k, v in masked.items()}
    out = blend(split, weight)
    assert len(out["image"].sharding.device_set) == len(jax.devices()) == 8
    np.testing.assert_allclose(out["image"], whole["image"], atol=1e-6)
    np.testing.assert_allclose(out["label"], whole["label"], atol=1e-6)


def test_random_flip(batch):
    image = np.asarray(batch["image"])
    np.testing.assert_array_equal(jitted(BatchRandomFlip(0.0), batch)["image"], image)
    once = jitted(BatchRandomFlip(1.0), batch)
    np.testing.assert_array_equal(once["image"], image[:, :, ::-1])
    np.testing.assert_array_equal(jitted(BatchRandomFlip(1.0), once)["image"], image)
    some = np.asarray(jitted(BatchRandomFlip(0.5), batch, 1)["image"])
    flipped = [np.array_equal(a, b[:, ::-1]) for a, b in zip(some, image, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(some, image, strict=True)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True))
    assert 0 < sum(flipped) < B


@pytest.mark.parametrize("fill", ["zero", "edge", "reflect"])
def test_random_crop_cuts_each_example_out_of_its_padding(fill, batch):
    image = np.asarray(batch["image"])
    wide = ((0, 0), (2, 2), (2, 2), (0, 0))
    padded = np.pad(image, wide, mode="constant" if fill == "zero" else fill)
    out = np.asarray(jitted(BatchRandomCrop(2, fill=fill), batch)["image"])
    places = []
    for i in range(B):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(out[i], padded[i, y : y + H, x : x + W])
        ]
        assert len(found) == 1
        places += found
    assert len(set(places)) > 2


def test_random_crop_identity_and_size(batch):
    np.testing.assert_array_equal(jitted(BatchRandomCrop(0), batch)["image"], batch["image"])
    pixels = {"image": (batch["image"] * 255).astype(jnp.uint8)}
    out = jitted(BatchRandomCrop(0, size=(5, 7)), pixels)["image"]
    assert out.shape == (B, 5, 7, 3)
    assert out.dtype == jnp.uint8
    with pytest.raises(ValueError, match=r"size=\(20, 5\) does not fit into 12x16 images"):
        jitted(BatchRandomCrop(3, size=(20, 5)), batch)


def test_device_ops_agree_with_host_ops():
    image = np.random.default_rng(0).integers(0, 256, (2, 6, 7, 3), np.uint8)
    rng = np.random.default_rng(0)
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        device = jitted(BatchValueRange(low, high), {"image": jnp.asarray(image)})["image"]
        host = values.ValueRange(low, high)({"image": image[0]}, rng)["image"]
        assert device.dtype == jnp.float32
        np.testing.assert_allclose(device[0], host, atol=1e-6)
    device = jitted(BatchRandomFlip(1.0), {"image": jnp.asarray(image)})["image"]
    np.testing.assert_array_equal(
        device[1], geometry.RandomFlip(1.0)({"image": image[1]}, rng)["image"]
    )


def test_apply_gives_every_op_its_own_key(batch):
    run = jax.jit(
        functools.partial(apply, (BatchRandomCrop(2), BatchRandomFlip(), BatchRandomFlip()))
    )
    out, same = (run(batch, jax.random.key(0)) for _ in range(2))
    np.testing.assert_array_equal(out["image"], same["image"])
    # One key for both would always flip twice: nothing would ever change.
    twice = jax.jit(functools.partial(apply, (BatchRandomFlip(), BatchRandomFlip())))
    images = [twice(batch, jax.random.key(seed))["image"] for seed in range(4)]
    assert any(not np.array_equal(image, batch["image"]) for image in images)
    assert apply((), batch, jax.random.key(0)) == batch


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        (Mixup(K), {"image": jnp.zeros((B, 2, 2, 3), jnp.uint8)}, "put ValueRange before"),
        (CutMix(K + 1), {"label": jnp.zeros((B, K))}, r"float32\[8, 5\].*\(B, 6\)"),
        (BatchValueRange(), {}, "expected uint8"),
        (BatchRandomFlip(image_key="picture"), {}, "no feature 'picture' among"),
        (BatchRandomFlip(image_key="label"), {}, r"expected \[B, H, W, C\]"),
    ],
)
def test_wrong_batches_say_what_to_do(op, change, message, batch):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(op, {**batch, **change}, jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixup(0), "num_classes is 0"),
        (lambda: CutMix(K, alpha=0.0), "alpha is 0.0"),
        (lambda: MixupCutMix(K, cutmix_alpha=-1.0), "cutmix_alpha is -1.0"),
        (lambda: MixupCutMix(K, switch_probability=2.0), "switch_probability is 2.0"),
        (lambda: BatchRandomCrop(-1), "padding is -1"),
        (lambda: BatchRandomCrop(fill="mirror"), "fill is 'mirror'"),  # pyright: ignore
        (lambda: BatchValueRange(1.0, 0.0), "low must be less"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()

from __future__ import annotations

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from vision.data import batch_views, ops
from vision.data.ops.corruptions import CORRUPTIONS, corrupt
from vision.data.ops.policies import WIDE_OPS
from vision.data.ops.resizing import resize

PHOTO = np.ascontiguousarray(load_sample_images().images[0][::6, ::6])  # 72 x 107


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def run(op, seed: int = 0, image: np.ndarray = PHOTO):
    return op({"image": image}, rng(seed))


RANDOM = [
    ops.AutoAugment(),
    ops.AutoAugment("cifar10"),
    ops.TrivialAugment(),
    ops.AugMix(),
    ops.ThreeAugment(),
    ops.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ops.RandomGrayscale(0.5),
    ops.RandomSolarize(0.5),
    ops.GaussianBlur(0.7),
    ops.JpegCompression(0.7),
]


@pytest.mark.parametrize("op", RANDOM, ids=lambda op: type(op).__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_repeat_themselves_vary_and_keep_shape(op, channels):
    image = PHOTO[:, :, :channels]
    before, seen = image.copy(), set()
    for seed in range(12):
        out, again = run(op, seed, image), run(op, seed, image)
        assert out["image"].dtype == np.uint8
        assert out["image"].shape == image.shape
        np.testing.assert_array_equal(out["image"], again["image"])
        assert out["_draws"] == again["_draws"]
        seen.add(out["image"].tobytes())
    np.testing.assert_array_equal(image, before)
    assert len(seen) > 1 or (channels == 1 and isinstance(op, ops.RandomGrayscale))
    assert run(op, 0, image[:1, :1])["image"].shape == (1, 1, channels)


def test_trivial_augment_draws_every_operation():
    names = {a[0] for s in range(300) for a in run(ops.TrivialAugment(), s, PHOTO[:4, :4])[
        "_draws"]["TrivialAugment"]["applied"]}  # fmt: skip
    assert names == set(WIDE_OPS) - {"Identity"}


def test_neutral_settings_are_the_identity():
    for op in (
        ops.ColorJitter(0, 0, 0, 0),
        ops.RandomGrayscale(0.0),
        ops.RandomSolarize(1.0, threshold=256),
        ops.GaussianBlur(0.0),
        ops.JpegCompression(0.0),
        ops.ThreeAugment(0.0),
    ):
        np.testing.assert_array_equal(run(op)["image"], PHOTO)
    grey = run(ops.RandomGrayscale(1.0))["image"]
    assert np.ptp(grey, axis=2).max() == 0
    notes = run(ops.AugMix())["_draws"]["AugMix"]
    assert sum(notes["shares"]) == pytest.approx(1)


def test_views_stack_and_note_their_crops():
    out = run(ops.simclr_views(32))
    assert out["image"].shape == (2, 32, 32, 3)
    assert not np.array_equal(*out["image"])
    for v in range(2):
        top, left, height, width = out["_draws"][f"image/{v}"]["RandomResizedCrop"]["box"]
        assert 0 <= top <= 72 - height
        assert 0 <= left <= 107 - width
    out = run(ops.dino_views(32, 16, num_local=3))
    assert {k: v.shape for k, v in out.items() if k != "_draws"} == {
        "image/global": (2, 32, 32, 3),
        "image/local": (3, 16, 16, 3),
    }
    with pytest.raises(ValueError, match="the views differ"):
        run(ops.Views(((ops.Resize((4, 4)),), (ops.Resize((5, 5)),))))


def test_patch_masks_hide_exactly_as_many_as_they_say():
    counts = np.zeros((14, 14))
    for seed in range(60):
        counts += (mask := ops.PatchMask()({}, rng(seed))["mask"])
        assert mask.sum() == 147
        block = ops.BlockPatchMask()({}, rng(seed))["mask"]
        assert block.sum() == 75
        # Blocks: neighbours agree far more often than at random (about half).
        assert (block[:, 1:] == block[:, :-1]).mean() > 0.7
    assert counts.min() > 60 * 0.4
    for hidden in (0, 1, 196):
        assert ops.BlockPatchMask(hidden=hidden)({}, rng())["mask"].sum() == hidden


def test_masks_of_several_views_hide_a_share_of_some():
    drawn = np.stack([ops.BlockPatchMasks((7, 9), 3)({}, rng(i))["mask"] for i in range(80)])
    assert drawn.shape == (80, 3, 7, 9)
    shares = drawn.mean((2, 3)).ravel()
    some = shares > 0
    assert 0.35 < some.mean() < 0.65
    assert 0.09 < shares[some].min() < 0.2 < 0.4 < shares.max() < 0.51
    assert ops.BlockPatchMasks((4, 4), probability=1.0, share=(1.0, 1.0))({}, rng())["mask"].all()
    with pytest.raises(ValueError, match="share"):
        ops.BlockPatchMasks(share=(0.5, 1.5))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_hurt_and_repeat(name):
    mild, same, hard = (corrupt(PHOTO, name, s, rng()) for s in (1, 1, 5))
    np.testing.assert_array_equal(mild, same)
    assert mild.dtype == np.uint8
    assert mild.shape == PHOTO.shape
    harm = [np.abs(x.astype(int) - PHOTO).mean() for x in (mild, hard)]
    assert harm[0] > 1
    assert harm[1] > harm[0] or name == "elastic_transform"
    assert run(ops.Corruption(name, 5), 0, PHOTO[:40, :31, :1])["image"].shape == (40, 31, 1)


@pytest.mark.parametrize("size", [(31, 40), (150, 200), (72, 60)])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_tf_family_equals_jax(kind, antialias, size):
    image = PHOTO.astype(np.float32)
    ours = resize(image, *size, f"tf_{kind}{'_aa' * antialias}")  # pyright: ignore
    theirs = jax.image.resize(image, (*size, 3), kind, antialias=antialias)
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


def test_torch_family_agrees_with_its_kin():
    image = PHOTO.astype(np.float32)
    for kind in ("bilinear", "bicubic"):
        pillow = resize(image, 31, 40, kind)  # pyright: ignore[reportArgumentType]
        antialiased = resize(image, 31, 40, f"torch_{kind}_aa")  # pyright: ignore
        np.testing.assert_allclose(antialiased, pillow, atol=2e-3)
    cv2 = pytest.importorskip("cv2")
    for kind, flag in (("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)):
        for size in ((31, 40), (150, 200)):
            plain = resize(image, *size, f"torch_{kind}")  # pyright: ignore
            theirs = cv2.resize(image, size[::-1], interpolation=flag)
            np.testing.assert_allclose(plain, theirs, atol=2e-2)
    whole = resize(PHOTO[:72, :104], 36, 52, "cv2_area").astype(int)
    mean = PHOTO[:72, :104].reshape(36, 2, 52, 2, 3).mean((1, 3))
    assert np.abs(whole - mean).max() <= 0.51


def test_device_crop_normalise_and_mask():
    batch = {"image": jnp.asarray(np.stack([PHOTO] * 4))}
    key = jax.random.key(0)
    op = batch_views.BatchRandomResizedCrop(24)
    out = jax.jit(op)(batch, key)["image"]
    assert out.shape == (4, 24, 24, 3)
    assert out.dtype == jnp.uint8
    assert not np.array_equal(out[0], out[1])
    boxes = np.asarray(jax.jit(op.draw, static_argnums=(1, 2, 3))(key, 2000, 72, 107))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2]).max() < 72.01
    assert abs((boxes[:, 2] * boxes[:, 3]).mean() / (72 * 107) - 0.54) < 0.06
    same = batch_views.BatchRandomResizedCrop((24, 36), (1.0, 1.0), (1.5, 1.5))
    floats = jnp.float32(batch["image"][:, :48, :72])
    row = resize(np.asarray(floats[0]), 24, 36, "tf_bilinear_aa")
    np.testing.assert_allclose(jax.jit(same)({"image": floats}, key)["image"][0], row, atol=0.05)
    normal = jax.jit(batch_views.BatchNormalize())({"image": jnp.full((1, 2, 2, 3), 0.5)}, key)[
        "image"
    ]
    np.testing.assert_allclose(normal[0, 0, 0], (0.5 - np.array([0.485, 0.456, 0.406]))
                               / np.array([0.229, 0.224, 0.225]), rtol=1e-5)  # fmt: skip
    masks = np.asarray(jax.jit(batch_views.TokenMask(49))(batch, key)["mask"])
    assert (masks.sum(1) == 49 - 12).all()
    assert not np.array_equal(masks[0], masks[1])


def test_crops_on_the_device_differ_by_view_and_are_mirrored():
    key, batch = jax.random.key(0), {"image": jnp.asarray(np.stack([PHOTO[:40, :40]] * 16))}
    whole = batch_views.BatchRandomResizedCrop(40, (1.0, 1.0), (1.0, 1.0))
    out = jax.jit(batch_views.Crops(whole, 3, "image/local"))(batch, key)
    np.testing.assert_array_equal(out["image"], batch["image"])
    views = np.asarray(out["image/local"])
    assert views.shape == (16, 3, 40, 40, 3)
    plain, turned = PHOTO[:40, :40], PHOTO[:40, :40][:, ::-1]
    flips = np.array([np.array_equal(view, turned) for view in views.reshape(-1, 40, 40, 3)])
    kept = np.array([np.array_equal(view, plain) for view in views.reshape(-1, 40, 40, 3)])
    assert (flips != kept).all()
    assert 12 < flips.sum() < 36
    cut = jax.jit(batch_views.Crops(batch_views.BatchRandomResizedCrop(12), 2))(batch, key)
    small = np.asarray(cut["image/global"]).astype(int)
    assert np.abs(small[:, 0] - small[:, 1]).max() > 20


def test_jpeg_compression_is_a_jpeg_round_trip():
    out = run(ops.JpegCompression(1.0, (40, 40)))
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "JPEG", quality=40)
    np.testing.assert_array_equal(out["image"], Image.open(file).convert("RGB"))
    assert out["_draws"]["JpegCompression"]["quality"] == 40

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from vision.data import ops
from vision.data.ops.auto import carry_applied
from vision.data.ops.geometry import crop

HEIGHT, WIDTH = 40, 60
BOXES = np.array([[5, 8, 20, 30], [0, 0, 40, 60], [30, 50, 38, 58], [0, 0, 0, 0]])
VALID = np.array([True, True, True, False])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def scene() -> dict:
    """Rectangles, so that a box can be read off its mask; the image shows object 0."""
    masks = np.zeros((4, HEIGHT, WIDTH), bool)
    for mask, (y0, x0, y1, x1) in zip(masks, BOXES, strict=True):
        mask[y0:y1, x0:x1] = True
    return {
        "image": np.repeat(masks[0, :, :, None] * np.uint8(255), 3, axis=2),
        "boxes": BOXES,
        "valid": VALID,
        "masks": masks,
        "segmentation": masks[0].astype(np.uint8) + 2 * masks[2],
        "keypoints": np.array([[[5, 8, 1], [20, 30, 1]], [[0, 0, 1], [39.5, 59.5, 1]]]),
    }


def box_of(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]


@pytest.mark.parametrize(
    "op",
    [
        ops.RandomCrop(24),
        ops.RandomCrop((30, 50), padding=6),
        ops.CenterCrop((20, 70)),
        ops.RandomFlip(1.0),
        ops.RandomFlip(1.0, axis="vertical"),
        ops.RandomFlip(0.5),
    ],
)
def test_boxes_of_carried_masks_are_the_carried_boxes(op):
    gone = 0
    for seed in range(12):
        out = op(scene(), rng(seed))
        assert out["boxes"].dtype == np.float32
        assert out["masks"].shape[1:] == out["image"].shape[:2] == out["segmentation"].shape
        for box, mask, valid in zip(out["boxes"], out["masks"], out["valid"], strict=True):
            assert box.tolist() == box_of(mask)
            assert valid == mask.any()
        np.testing.assert_array_equal(out["masks"][0], out["image"][:, :, 0] > 0)
        assert not out["valid"][3]
        gone += not out["valid"][:3].all()
    assert gone or not isinstance(op, ops.RandomCrop) or op.padding


def test_crop_of_everything_and_flip_twice_change_nothing():
    whole = ops.RandomResizedCrop((HEIGHT, WIDTH), scale=(1, 1), ratio=(1.5, 1.5))
    flips = [ops.RandomFlip(1.0, keypoint_swap=(1, 0))] * 2
    for chain in (
        [whole],
        flips,
        [ops.RandomFlip(1.0, axis="vertical")] * 2,
        [ops.Resize((40, 60))],
    ):
        out = scene()
        for op in chain:
            out = op(out, rng())
        for name, value in scene().items():
            np.testing.assert_array_equal(out[name], value, err_msg=name)


def test_resizing_scales_boxes_and_points_exactly():
    out = ops.Resize((80, 30))(scene(), rng())
    np.testing.assert_allclose(out["boxes"][0], [10, 4, 40, 15])
    np.testing.assert_allclose(out["keypoints"][0, :, :2], [[10, 4], [40, 15]])
    assert box_of(out["masks"][0]) == [10, 4, 40, 15]
    for seed in range(8):
        out = ops.RandomResizedCrop(32, scale=(0.2, 0.9))(scene(), rng(seed))
        for box, mask in zip(out["boxes"][:3], out["masks"][:3], strict=True):
            if mask.any():  # nearest neighbour is off by less than a pixel
                assert np.abs(box - box_of(mask)).max() <= 1


def test_key_points_swap_and_go_out_of_sight():
    flipped = ops.RandomFlip(1.0, keypoint_swap=(1, 0))(scene(), rng())
    np.testing.assert_array_equal(flipped["keypoints"][0], [[20, 30, 1], [5, 52, 1]])
    cut = ops.CenterCrop(20)(scene(), rng())  # rows 10..30, columns 20..40
    np.testing.assert_array_equal(cut["keypoints"][0], [[-5, -12, 0], [10, 10, 1]])
    with pytest.raises(ValueError, match="keypoint_swap names 3"):
        ops.RandomFlip(1.0, keypoint_swap=(0, 2, 1))(scene(), rng())
    with pytest.raises(ValueError, match="permutation"):
        ops.RandomFlip(keypoint_swap=(1, 1))


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_policies_carry_masks_where_the_pixels_go(name):
    op = ops.RandAugment(1, probability=1.0, ops=(name,), magnitude_std=0.0, fill=(0, 0, 0))
    for seed in range(6):
        out = op(scene(), rng(seed))
        seen, carried = out["image"][:, :, 0] > 127, out["masks"][0]
        assert (seen & carried).sum() / (seen | carried).sum() > 0.93
        assert np.abs(out["boxes"][0] - box_of(carried)).max() <= 1.5
    quarter = carry_applied({"masks": np.ones((1, 8, 8)), "boxes": [[0, 0, 2, 4]]}, "image",
                            [("Rotate", 90.0)], (8, 8))  # fmt: skip
    np.testing.assert_allclose(quarter["boxes"], [[4, 0, 8, 2]], atol=1e-5)
    assert quarter["valid"].all()


def test_views_leave_annotations_to_the_whole_image():
    out = ops.RandomFlip(1.0, key="other")({**scene(), "other": scene()["image"]}, rng())
    np.testing.assert_array_equal(out["boxes"], BOXES)


def jpeg(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    photo = Image.fromarray(load_sample_images().images[0]).resize((size[1], size[0]))
    photo.save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.parametrize("method", ["bilinear", "cv2_linear"])
def test_decode_crop_draws_what_the_two_ops_draw(method):
    if method.startswith("cv2"):
        pytest.importorskip("cv2")
    cut = ops.RandomResizedCrop(48, scale=(0.05, 1.0), method=method)
    large, small = jpeg((427, 640)), jpeg((60, 90))
    shrunk = 0
    for seed in range(12):
        for data, exact in ((small, True), (large, False)):
            boxes = np.array([[5, 8, 50, 60]])
            one = ops.DecodeCrop(cut)({"image": data, "boxes": boxes}, rng(seed))
            two = cut(ops.Decode()({"image": data, "boxes": boxes}, rng(seed)), rng(seed))
            assert one["_draws"] == two["_draws"]
            np.testing.assert_array_equal(one["boxes"], two["boxes"])
            difference = np.abs(one["image"].astype(int) - two["image"]).mean()
            assert difference == 0 or not exact
            # The leaves of this photograph alias, and more so without antialiasing.
            assert difference < (10 if method == "bilinear" else 25)
            shrunk += difference > 0
    assert shrunk >= 6
    array = crop(scene()["image"], 0, 0, 30, 30)
    np.testing.assert_array_equal(
        ops.DecodeCrop(cut)({"image": array}, rng())["image"], cut({"image": array}, rng())["image"]
    )

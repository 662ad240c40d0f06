"""Resizing, by the convention of the library that is named.

A method without a prefix is Pillow's. The families differ in more than speed:

    ``bilinear`` ...        Pillow (torchvision and timm on PIL images): antialiased, 8-bit sums
    ``torch_*``             ``torch.nn.functional.interpolate(align_corners=False)``: not
                            antialiased, cubic with a = -0.75; ``torch_*_aa`` with antialias=True
                            has Pillow's filters in floats
    ``tf_*``                ``tf.image.resize`` and ``jax.image.resize(antialias=False)``, cubic
                            with a = -0.5; ``tf_*_aa`` is their antialias=True
    ``cv2_*``               OpenCV: ``cv2_linear`` and ``cv2_cubic`` (a = -0.75) are not
                            antialiased, ``cv2_area`` averages; needs opencv-python-headless

Without antialiasing a picture shrunk by more than about 2 shows false patterns, and a network
trained on one convention loses accuracy on another; evaluate with the one that was trained with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image

from vision.data.source import DataError

try:
    import cv2
except ImportError:  # Pillow and numpy resize everything, more slowly
    cv2 = None

_MAX_MADE = 1 << 24
_MAX_KEPT_WEIGHTS = 1 << 19  # 2 MiB of float32; longer tables are made anew
Method = Literal[
    "nearest",
    "box",
    "bilinear",
    "hamming",
    "bicubic",
    "lanczos",
    "torch_bilinear",
    "torch_bilinear_aa",
    "torch_bicubic",
    "torch_bicubic_aa",
    "tf_bilinear",
    "tf_bilinear_aa",
    "tf_bicubic",
    "tf_bicubic_aa",
    "cv2_nearest",
    "cv2_linear",
    "cv2_area",
    "cv2_cubic",
    "cv2_lanczos4",
]

_PILLOW = {m.name.lower(): m for m in Image.Resampling}
_CV2 = {  # cv2.INTER_*
    "cv2_nearest": 0,
    "cv2_linear": 1,
    "cv2_cubic": 2,
    "cv2_area": 3,
    "cv2_lanczos4": 4,
}


def check_made(size: tuple[int, int], to: tuple[int, int], frame: tuple[int, int], op: str) -> None:
    """Raises DataError where resizing by one side makes far more pixels than came in.

    A rule of 1 x 20,000 pixels whose shorter side becomes 72 is 1,440,000 pixels long: a file of
    5 kB that takes a gigabyte. The bound is that of the image itself, four frames, or 2^24 pixels.

    Args:
      size: (height, width) of the image.
      to: (height, width) that it would have.
      frame: (height, width) that was asked for.
      op: the op's name, for the message.
    """
    if to[0] * to[1] > max(size[0] * size[1], 4 * frame[0] * frame[1], _MAX_MADE):
        raise DataError(
            f"{op}: an image of {size[0]} x {size[1]} pixels (height x width) would become "
            f"{to[0]} x {to[1]}; crop it first, or leave it out"
        )


def resize(image: np.ndarray, height: int, width: int, method: Method = "bilinear") -> np.ndarray:
    """``image`` [H, W, C] uint8 or float32 at another size, by ``method``'s convention.

    uint8 results are rounded and clipped. The same size gives the same array.
    """
    if image.shape[:2] == (height, width):
        return image
    if image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"resize: dtype {image.dtype}, expected uint8 or float32")
    if method in _CV2:
        return _resize_cv2(image, height, width, method)
    if method in _PILLOW:
        return _resize_pillow(image, height, width, _PILLOW[method])
    return _resize_separable(image, height, width, method)


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest neighbour on the last two axes, any dtype: what Pillow's ``nearest`` picks."""
    rows, columns = labels.shape[-2:]
    if (rows, columns) == (height, width):
        return labels
    i = ((np.arange(height) + 0.5) * (rows / height)).astype(np.intp)
    j = ((np.arange(width) + 0.5) * (columns / width)).astype(np.intp)
    return labels[..., i[:, None], j[None, :]]


@functools.cache
def single_threaded_cv2() -> None:
    """OpenCV's own thread pool off: the pipeline's threads and workers already fill the cores."""
    assert cv2 is not None
    cv2.setNumThreads(0)


def _resize_cv2(image: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    if cv2 is None:
        raise ImportError(
            f"method={method!r} needs OpenCV: pip install 'opencv-python-headless>=4.10,<6'"
        )
    single_threaded_cv2()
    try:
        out = cv2.resize(image, (width, height), interpolation=_CV2[method])
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError(f"cv2.resize to {height} x {width}") from error
    return out if out.ndim == 3 else out[:, :, None]  # OpenCV drops a channel axis of 1


def _resize_pillow(
    image: np.ndarray, height: int, width: int, resample: Image.Resampling
) -> np.ndarray:
    if image.dtype == np.uint8 and image.shape[2] == 3:
        out = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), resample)
        return np.asarray(out)
    planes = [
        Image.fromarray(np.ascontiguousarray(image[:, :, c])).resize((width, height), resample)
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(p) for p in planes], axis=2)


def _resize_separable(image: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    rows, columns, channels = image.shape
    down = weights(rows, height, method)
    across = weights(columns, width, method)
    out = down @ image.reshape(rows, -1).astype(np.float32)
    out = np.matmul(across, out.reshape(height, columns, channels))
    if image.dtype == np.uint8:
        out = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return out


def weights(length: int, to: int, method: str) -> np.ndarray:
    """float32 (to, length): row i holds what each of ``length`` pixels gives to pixel i."""
    if length * to <= _MAX_KEPT_WEIGHTS:
        return _kept_weights(length, to, method)
    return _weights(length, to, method)


@functools.lru_cache(maxsize=256)
def _kept_weights(length: int, to: int, method: str) -> np.ndarray:
    return _weights(length, to, method)


def _weights(length: int, to: int, method: str) -> np.ndarray:
    library, kind, *antialias = method.split("_")
    ratio = length / to
    stretch = max(1.0, ratio) if antialias else 1.0
    kernel, reach = _kernel(library, kind, bool(antialias))
    centre = (np.arange(to) + 0.5) * ratio - 0.5
    if library == "torch" and not antialias:
        # Taps beyond the border read the border's pixel.
        span = int(np.ceil(reach))
        taps = np.floor(centre).astype(int)[:, None] + np.arange(1 - span, span + 1)
        share = kernel(centre[:, None] - taps)
        table = np.zeros((to, length))
        rows = np.broadcast_to(np.arange(to)[:, None], taps.shape)
        np.add.at(table, (rows, np.clip(taps, 0, length - 1)), share)
    else:
        # Taps beyond the border do not count, and the rest is scaled up to 1.
        table = kernel((centre[:, None] - np.arange(length)) / stretch)
        table /= table.sum(axis=1, keepdims=True)
    return table.astype(np.float32)


def _kernel(
    library: str, kind: str, antialias: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    if kind == "bilinear":
        return lambda x: np.maximum(0.0, 1.0 - np.abs(x)), 1.0
    a = -0.75 if library == "torch" and not antialias else -0.5

    def cubic(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    return cubic, 2.0

"""Resampling of parameters to another image or patch size than they were trained for.

Libraries resample positions differently, and each rule here is that of the library whose weights
are read: ``fit_positions`` of timm and open_clip, ``fit_positions_plainly`` of transformers,
``fit_positions_linearly`` of its SigLIP2 for images of any shape, ``fit_positions_by_corners`` of
big_vision and the first ViT papers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vision.models.posemb import resample_posemb


def fit_positions_plainly(pos: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The same as torch's ``interpolate(mode="bicubic", align_corners=False)``: no antialiasing,
    Keys' cubic with a = -0.75, and positions beyond the border are those of the border."""
    _check_width(pos, shape)
    found = pos.astype(np.float64)
    for axis in (0, 1):
        weights = _cubic(pos.shape[axis], shape[axis])
        found = np.moveaxis(np.tensordot(weights, found, (1, axis)), 0, axis)
    return found.astype(np.float32)


def fit_positions_linearly(pos: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The same bilinearly and antialiased, as of SigLIP2's NaFlex."""
    _check_width(pos, shape)
    resized = jax.image.resize(pos.astype(np.float32), shape, "linear", antialias=True)
    return pos if pos.shape == shape else np.asarray(resized)


def fit_positions_by_corners(pos: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The same bilinearly, corners on corners, as ``scipy.ndimage.zoom(pos, factors, order=1)``."""
    _check_width(pos, shape)
    found = pos.astype(np.float64)
    for axis in (0, 1):
        place = np.linspace(0, pos.shape[axis] - 1, shape[axis])
        at = np.arange(pos.shape[axis])
        weights = np.maximum(0, 1 - np.abs(place[:, None] - at))
        found = np.moveaxis(np.tensordot(weights, found, (1, axis)), 0, axis)
    return found.astype(np.float32)


def _check_width(pos: np.ndarray, shape: tuple[int, ...]) -> None:
    if pos.shape[-1] != shape[-1]:
        raise ValueError(f"positions of width {pos.shape[-1]} cannot become {shape}")


def _cubic(old: int, new: int) -> np.ndarray:
    """(new, old) weights, by which ``old`` samples become ``new``."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        away = np.abs(place - (first + tap))
        near = (1.25 * away - 2.25) * away**2 + 1
        far = ((-0.75 * away + 3.75) * away - 6) * away + 3
        at = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), at), np.where(away <= 1, near, far))
    return weights


def fit_positions(pos: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positions (rows, columns, D) for the grid of ``shape``, bicubic and antialiased; see
    ``resample_posemb``."""
    _check_width(pos, shape)
    grid = (shape[0], shape[1])
    return np.asarray(resample_posemb(jnp.asarray(pos), (pos.shape[0], pos.shape[1]), grid))


def fit_patches(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Patch embedding (h, w, C, D) for patches of another size.

    Its products with patches resized (bicubic, antialiased) to the new size are nearest to those
    of the old kernel with the old patches: equal where patches grow. Beyer et al., FlexiViT, 2023.
    """
    if kernel.shape[2:] != shape[2:]:
        raise ValueError(f"a patch embedding of shape {kernel.shape} cannot become {shape}")
    old, new = kernel.shape[:2], shape[:2]
    basis = jnp.eye(old[0] * old[1], dtype=jnp.float32).reshape(*old, -1)
    resized = jax.image.resize(basis, (*new, basis.shape[-1]), "cubic", antialias=True)
    resize = np.asarray(resized, np.float64).reshape(-1, basis.shape[-1])
    solved = np.linalg.pinv(resize.T) @ kernel.reshape(basis.shape[-1], -1).astype(np.float64)
    return solved.reshape(shape).astype(np.float32)

"""Resampling of parameters to another image or patch size than they were trained for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vision.models.posemb import resample_posemb


def fit_positions(pos: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positions (rows, columns, D) for the grid of ``shape``; see ``resample_posemb``."""
    if pos.shape[-1] != shape[-1]:
        raise ValueError(f"positions of width {pos.shape[-1]} cannot become {shape}")
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

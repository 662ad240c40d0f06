"""What happens to a finished canvas: rendering domains and generator traces.

Canvases are planar float32[3, H, W] in 0..255. As in the renderer, only exactly rounded
operations are used, and sums are taken term by term, so the pixels are the same everywhere.
"""

from __future__ import annotations

import numpy as np

from vision.data.sources.scenes.draws import choice, uniforms
from vision.data.sources.scenes.record import Artefact, Scene, cos_sin

NOISE_LEVEL = 26.0
"""Standard deviation of the noisy style, in grey levels of 255."""


def apply_style(canvas: np.ndarray, scene: Scene) -> np.ndarray:
    """``canvas`` in the style of ``scene``. Sketch and swapped are drawn, not filtered: they
    pass unchanged."""
    if scene.style == "greyscale":
        grey = 0.299 * canvas[0] + 0.587 * canvas[1] + 0.114 * canvas[2]
        return np.stack((grey, grey, grey))
    if scene.style == "noisy":
        return canvas + np.float32(NOISE_LEVEL) * _grain(scene.style_seed, canvas.shape)
    if scene.style == "painterly":
        return _painterly(canvas, scene.style_seed)
    return canvas


def _grain(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Independent noise of mean 0 and variance 1 (sum of three uniforms), float32."""
    count = int(np.prod(shape))
    u = uniforms(seed, "styles", 0, "grain", 3 * count).reshape(3, count)
    return ((u[0] + u[1] + u[2] - 1.5) * 2.0).astype(np.float32).reshape(shape)


def _window_sum(planes: np.ndarray, width: int) -> np.ndarray:
    """Sums over width x width windows, [C, H - width + 1, W - width + 1]."""
    height, length = planes.shape[1] - width + 1, planes.shape[2] - width + 1
    rows = planes[:, :height].copy()
    for k in range(1, width):
        rows += planes[:, k : k + height]
    total = rows[:, :, :length].copy()
    for k in range(1, width):
        total += rows[:, :, k : k + length]
    return total


def _painterly(canvas: np.ndarray, seed: int) -> np.ndarray:
    """Kuwahara filter (each pixel takes the mean of its calmest quadrant) after brush noise,
    then seven levels of lightness."""
    _, height, width = canvas.shape
    reach = max(2, min(height, width) // 32)
    window = reach + 1
    canvas = canvas + np.float32(10) * _grain(seed, (1, height, width))
    padded = np.pad(canvas, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    light = padded[:1] + padded[1:2] + padded[2:]
    count = np.float32(window * window)
    mean = _window_sum(padded, window) / count
    first = _window_sum(light, window) / count
    unrest = _window_sum(light * light, window) / count - first * first
    corners = [(y, x) for y in (0, reach) for x in (0, reach)]
    calm = np.stack([unrest[0, y : y + height, x : x + width] for y, x in corners]).argmin(0)
    means = np.stack([mean[:, y : y + height, x : x + width] for y, x in corners])
    chosen = np.take_along_axis(means, calm[None, None], axis=0)[0]
    tone = np.maximum((chosen[0] + chosen[1] + chosen[2]) / np.float32(3), np.float32(1))
    step = np.float32(255 / 7)
    return chosen * ((np.floor(tone / step) + np.float32(0.5)) * step / tone)


def apply_artefact(canvas: np.ndarray, artefact: Artefact) -> np.ndarray:
    """``canvas`` float32[3, H, W] with the trace of ``artefact``."""
    if artefact.strength == 0:
        return canvas
    _, height, width = canvas.shape
    strength = np.float32(artefact.strength)
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    if artefact.kind == "checkerboard":
        sign = 1 - 2 * ((y + x + artefact.seed) % 2)
        coarse = 1 - 2 * ((y // 2 + x // 2) % 2)
        return canvas + strength * (20 * sign + 10 * coarse).astype(np.float32)
    if artefact.kind == "spectral":
        rows, columns, phase = uniforms(artefact.seed, "styles", 0, "peaks", 3).tolist()
        turn_y, turn_x = choice((0.25, 0.3, 0.2), rows), choice((0.25, 0.35, 0.15), columns)
        wave_y = [cos_sin(360 * (turn_y * k + phase))[0] for k in range(height)]
        wave_x = [cos_sin(360 * (turn_x * k + phase))[0] for k in range(width)]
        peaks = np.array(wave_y, np.float32)[:, None] + np.array(wave_x, np.float32)
        return canvas + 16 * strength * peaks
    if artefact.kind == "blur":
        return canvas + strength * (_blur(_blur(canvas)) - canvas)
    if artefact.kind == "resample":
        odd = np.pad(canvas, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
        half = (odd[:, ::2, ::2] + odd[:, 1::2, ::2] + odd[:, ::2, 1::2] + odd[:, 1::2, 1::2]) / 4
        again = half.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
        return canvas + strength * (again - canvas)
    if artefact.kind == "blocks":
        step = 1 + 63 * strength
        anchor = canvas[:, y // 8 * 8, x // 8 * 8]
        return anchor + np.floor((canvas - anchor) / step + np.float32(0.5)) * step
    if artefact.kind == "fingerprint":
        return canvas + 14 * strength * _blur(_grain(artefact.seed, (3, height, width)))
    raise ValueError(f"artefact {artefact.kind!r} cannot be drawn")


def _blur(planes: np.ndarray) -> np.ndarray:
    """Binomial 3 x 3 filter with repeated edges, float32[C, H, W]."""
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / np.float32(16)

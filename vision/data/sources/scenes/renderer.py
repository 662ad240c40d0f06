"""From the record to pixels: image, instance masks, boxes, visible shares.

Objects are painted in the order of their layers, each inside its own bounding box only, from
the signed distance of its shape. Arithmetic is float32 with exactly rounded operations, so equal
records give equal pixels in every process and on every platform.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.grounds import tile
from vision.data.sources.scenes.record import Glyph, Object, Scene, cos_sin, in_view
from vision.data.sources.scenes.shapes import DISTANCES
from vision.data.sources.scenes.styles import apply_artefact, apply_style

_COLOUR = {name: np.array(rgb, np.float32).reshape(3, 1, 1) for name, rgb in words.PALETTE.items()}
_PAPER = np.array((232, 230, 224), np.float32).reshape(3, 1, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Rendering:
    """What one scene looks like, and what belongs to whom.

    Attributes:
      image: uint8[H, W, 3].
      instances: uint8[H, W]; 0 is background, k + 1 the visible pixels of ``objects[k]``.
      extents_px: int64[K]: pixels of each object inside the frame before occlusion.
      glyph_mask: bool[H, W], the square of the glyph; None without a glyph. The glyph
        lies on top of the objects and takes no pixels from their masks.
    """

    image: np.ndarray
    instances: np.ndarray
    extents_px: np.ndarray
    glyph_mask: np.ndarray | None = None

    @functools.cached_property
    def masks(self) -> np.ndarray:
        """Visible pixels of every object, bool[K, H, W]; no two overlap."""
        return (
            self.instances == np.arange(1, len(self.extents_px) + 1, dtype=np.uint8)[:, None, None]
        )

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """Tight boxes around the visible pixels, int32[K, 4]: y0, x0, y1, x1, the last two
        exclusive, in pixels; zeros for an object that cannot be seen."""
        boxes = np.zeros((len(self.extents_px), 4), np.int32)
        for k, mask in enumerate(self.masks):
            y, x = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            if len(y):
                boxes[k] = y[0], x[0], y[-1] + 1, x[-1] + 1
        return boxes

    @functools.cached_property
    def areas_px(self) -> np.ndarray:
        """Visible pixels of every object, int64[K]."""
        return np.bincount(self.instances.ravel(), minlength=len(self.extents_px) + 1)[1:]

    @functools.cached_property
    def visible(self) -> np.ndarray:
        """Share of every object's pixels in the frame that nothing covers, float32[K], 0..1."""
        return (self.areas_px / np.maximum(self.extents_px, 1)).astype(np.float32)


def render(scene: Scene, size: int | tuple[int, int] = 64) -> Rendering:
    """Draws ``scene`` at ``size`` (side, or height and width, in pixels; at least 8).

    Raises:
      ValueError: an image too small to draw, or more than 255 objects.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 8:
        raise ValueError(f"size={size!r}: an image needs at least 8 x 8 pixels")
    if len(scene.objects) > 255:
        raise ValueError(f"{len(scene.objects)} objects; at most 255 can be told apart")
    canvas = _ground(scene, height, width)
    instances = np.zeros((height, width), np.uint8)
    extents = np.zeros(len(scene.objects), np.int64)
    for thing in scene.clutter:
        _paint(canvas, None, in_view(thing, scene.view), 0, scene)
    order = sorted(range(len(scene.objects)), key=lambda k: scene.objects[k].layer)
    for k in order:
        thing = in_view(scene.objects[k], scene.view)
        extents[k] = _paint(canvas, instances, thing, k + 1, scene)
    glyph_mask = None
    if scene.glyph is not None:
        glyph_mask = _stamp(canvas, scene.glyph)
    if scene.view.brightness != 1.0:
        canvas *= np.float32(scene.view.brightness)
    canvas = apply_style(canvas, scene)
    if scene.artefact is not None:
        canvas = apply_artefact(canvas, scene.artefact)
    if _may_leave_range(scene):
        np.minimum(canvas, 255.0, out=canvas)
        np.maximum(canvas, 0.0, out=canvas)
    canvas += 0.5
    planes = canvas.astype(np.uint8)
    image = np.empty((height, width, 3), np.uint8)
    # Three strided copies are three times faster than one transposed copy.
    for channel in range(3):
        image[:, :, channel] = planes[channel]
    return Rendering(image, instances, extents, glyph_mask)


def _may_leave_range(scene: Scene) -> bool:
    """Whether a value outside 0..255 is possible: the lightest ground is 232 of 255."""
    lightest = 232 * scene.background.brightness * scene.view.brightness
    filtered = scene.style in ("noisy", "painterly") or scene.artefact is not None
    return filtered or lightest > 255 or scene.view.brightness > 1


def _ground(scene: Scene, height: int, width: int) -> np.ndarray:
    """Background, float32[3, height, width], 0..255."""
    ground, side = scene.background, min(height, width)
    pattern = tile(ground.kind, height, width)
    y0 = int((ground.offset_y - scene.view.shift_y) * side) % side
    x0 = int((ground.offset_x - scene.view.shift_x) * side) % side
    canvas = pattern[:, y0 : y0 + height, x0 : x0 + width].astype(np.float32)
    if ground.brightness != 1.0:
        canvas *= np.float32(ground.brightness)
    if scene.style == "sketch":
        canvas *= np.float32(0.12)
        canvas += _PAPER * np.float32(0.88)
    return canvas


@functools.lru_cache(maxsize=256)
def _centres(length: int) -> np.ndarray:
    return np.arange(length, dtype=np.float32) + np.float32(0.5)


def _paint(
    canvas: np.ndarray, instances: np.ndarray | None, thing: Object, label: int, scene: Scene
) -> int:
    """Draws one object over ``canvas`` and returns its number of pixels in the frame.

    A pixel belongs to the object when at least half of it is covered.
    """
    _, height, width = canvas.shape
    side = min(height, width)
    radius = thing.size * side
    cy, cx = thing.y * height, thing.x * width
    y0, y1 = max(int(cy - radius - 1), 0), min(int(cy + radius + 2), height)
    x0, x1 = max(int(cx - radius - 1), 0), min(int(cx + radius + 2), width)
    if y0 >= y1 or x0 >= x1:
        return 0
    ys = (_centres(height)[y0:y1] - cy)[:, None]
    xs = _centres(width)[x0:x1] - cx
    cosine, sine = cos_sin(thing.rotation_deg)
    u, v = cosine / radius, sine / radius
    inside = DISTANCES[thing.shape](xs * u + ys * v, ys * u - xs * v)
    inside *= -radius
    cover = inside + 0.5
    if thing.variant == "outlined":
        band = max(0.17 * radius, 1.5)
        np.minimum(cover, (band + 0.5) - inside, out=cover)
    np.minimum(cover, 1.0, out=cover)
    np.maximum(cover, 0.0, out=cover)

    # A little light from above: one factor a row.
    shade = ys * (-0.07 / radius)
    shade += 0.93
    if thing.texture != "plain":
        dark = _texture(thing, ys, xs, side)
        if thing.variant != "outlined":
            # A clear rim of a pixel, or else dots at the edge look like bites out of the shape.
            dark *= np.minimum(np.maximum(inside - 0.7, 0.0), 1.0)
        dark *= -0.52
        dark += 1.0
        dark *= shade
        shade = dark
    drawn = scene.style in ("sketch", "swapped")
    if thing.variant == "bordered" or drawn:
        edge = max(0.2 * radius, 1.5) if thing.variant == "bordered" else max(0.05 * radius, 1.0)
        rim = np.minimum(np.maximum((edge + 0.5) - inside, 0.0), 1.0)
        rim *= -0.6
        rim += 1.0
        rim *= shade
        shade = rim
    region = canvas[:, y0:y1, x0:x1]
    if scene.style == "sketch":
        paint = _PAPER * shade - region
    elif scene.style == "swapped":
        paint = tile(_material(scene, label), height, width)[:, y0:y1, x0:x1] * shade - region
    else:
        paint = _COLOUR[thing.colour] * shade - region
    paint *= cover
    region += paint

    covered = cover >= 0.5
    if instances is not None:
        np.copyto(instances[y0:y1, x0:x1], label, where=covered)
    return int(np.count_nonzero(covered))


def _material(scene: Scene, label: int) -> str:
    """Ground that fills an object in the swapped style: never the one the scene lies on."""
    others = [kind for kind in words.BACKGROUNDS if kind != scene.background.kind]
    return others[(scene.style_seed + 4 * label) % len(others)]


def _texture(thing: Object, ys: np.ndarray, xs: np.ndarray, side: int) -> np.ndarray:
    """Darkness of the texture, float32[h, w] in 0..1; edges are one pixel soft."""
    period = max(thing.texture_period * side, 2.0)
    cosine, sine = cos_sin(thing.rotation_deg + thing.texture_angle_deg)
    u, v = cosine / period, sine / period
    along = _wave(ys * u - xs * v)
    if thing.texture == "striped":
        dark = along * period
    else:
        across = _wave(xs * u + ys * v)
        if thing.texture == "checked":
            dark = along * across * (4 * period)
        else:
            along -= 0.25
            across -= 0.25
            along *= along
            across *= across
            away = np.sqrt(along + across)
            dark = (0.27 - away) * period
    dark += 0.5
    np.minimum(dark, 1.0, out=dark)
    return np.maximum(dark, 0.0, out=dark)


def _wave(at: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1 between -0.25 and 0.25, zero at multiples of one half."""
    at -= np.floor(at)
    at -= 0.5
    np.abs(at, out=at)
    at -= 0.25
    return at


def _stamp(canvas: np.ndarray, glyph: Glyph) -> np.ndarray:
    """Draws the glyph in whole pixels and returns its mask, bool[H, W]."""
    _, height, width = canvas.shape
    cell = max(round(glyph.size * min(height, width) / 3), 1)
    y0 = min(max(round(glyph.y * height - 1.5 * cell), 0), height - 3 * cell)
    x0 = min(max(round(glyph.x * width - 1.5 * cell), 0), width - 3 * cell)
    bits = [[row >> (2 - column) & 1 for column in range(3)] for row in words.GLYPHS[glyph.pattern]]
    cells = np.array(bits, np.float32) * np.float32(235) + np.float32(10)
    canvas[:, y0 : y0 + 3 * cell, x0 : x0 + 3 * cell] = cells.repeat(cell, 0).repeat(cell, 1)
    mask = np.zeros((height, width), bool)
    mask[y0 : y0 + 3 * cell, x0 : x0 + 3 * cell] = True
    return mask

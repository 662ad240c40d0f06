"""A contact sheet of everything the generator can do: a labelled row of pictures per parameter."""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.captions import caption
from vision.data.sources.scenes.clips import Clips
from vision.data.sources.scenes.noise import CAPTION_NOISE, LABEL_NOISE, near_duplicate
from vision.data.sources.scenes.pen import draw_strokes, strokes
from vision.data.sources.scenes.record import Artefact, Background, Object, Scene
from vision.data.sources.scenes.renderer import Rendering, render
from vision.data.sources.scenes.source import Scenes
from vision.data.sources.scenes.triplets import Triplets
from vision.data.sources.scenes.world import World

TILE = 96
COLUMNS = 12
_LABEL_WIDTH = 190
_GAP = 6
_HUES = np.array(
    [(230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180)]
)

Tile = tuple[np.ndarray, str]
"""An image uint8[h, w, 3] of sides up to TILE, and the words under it."""

Row = tuple[str, list[Tile]]
"""What a row shows, and its pictures."""


def _drawn(scene: Scene, text: str = "") -> Tile:
    return render(scene, TILE).image, text


def _masks(scene: Scene) -> Tile:
    """Instance masks in colours, with boxes."""
    drawn = render(scene, TILE)
    return outlined(drawn), f"{drawn.visible.min():.0%} visible"


def outlined(drawn: Rendering) -> np.ndarray:
    """Instance masks in colours with their boxes, uint8[h, w, 3]."""
    colours = np.concatenate([np.array([[30, 30, 30]]), _HUES[np.arange(32) % len(_HUES)]])
    picture = Image.fromarray(colours[drawn.instances].astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for y0, x0, y1, x1 in drawn.boxes.tolist():
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=(255, 255, 255))
    return np.asarray(picture)


def rows() -> list[Row]:
    """Label and tiles of every row."""
    palette = list(words.COLOURS) * 2
    subject = Object("star", "red", texture="striped", size=0.26, y=0.42, x=0.38, rotation_deg=12)
    scene = Scene(
        (subject, Object("arrow", "blue", "bordered", size=0.18, y=0.68, x=0.74)),
        Background("wood", 0.2, 0.1),
    )
    sheet: list[Row] = []
    for start in (0, 8):
        shapes = words.SHAPES[start : start + 8]
        for variant in words.VARIANTS:
            tiles = [
                _drawn(
                    Scene((Object(shape, palette[start + k], variant, size=0.34),)),
                    f"{variant} {shape}",
                )
                for k, shape in enumerate(shapes)
            ]
            families = ", ".join(dict.fromkeys(words.FAMILY_OF[shape] for shape in shapes))
            sheet.append((f"shapes: {families}; {variant}", tiles))
    sheet.append(
        (
            "colours",
            [_drawn(Scene((Object("square", c, size=0.36),)), c) for c in words.COLOURS],
        )
    )
    sheet.append(
        (
            "textures, periods and directions",
            [
                _drawn(
                    Scene(
                        (
                            Object(
                                "circle", palette[k], texture=texture, size=0.36,
                                texture_period=period, texture_angle_deg=angle,
                            ),
                        )
                    ),
                    f"{texture} {period} {angle}",
                )
                for k, (texture, period, angle) in enumerate(
                    (t, p, a)
                    for t in words.TEXTURES[1:]
                    for p, a in ((0.08, 0), (0.08, 45), (0.14, 0), (0.14, 30))
                )
            ],
        )
    )  # fmt: skip
    sheet.append(
        ("backgrounds", [_drawn(Scene((), Background(kind)), kind) for kind in words.BACKGROUNDS])
    )
    plain = Scenes(num_objects=(1, 3))
    sheet.append(
        (
            "default scenes with short captions",
            [_drawn(plain.scene(i), caption(plain.scene(i))) for i in range(COLUMNS)],
        )
    )
    crowd = World(num_objects=(4, 7), overlap=0.5)
    sheet.append(("4 to 7 objects, overlap 0.5", [_drawn(crowd.scene(i)) for i in range(COLUMNS)]))
    sheet.append(
        ("the same: visible masks, boxes", [_masks(crowd.scene(i)) for i in range(COLUMNS)])
    )
    nested = World(num_objects=(2, 3), nested=1.0)
    sheet.append(
        (
            "nested; medium captions",
            [_drawn(nested.scene(i), caption(nested.scene(i), "medium")) for i in range(COLUMNS)],
        )
    )
    worlds = {
        "clutter 12": World(clutter=12),
        "glyph, 0.12 of the side": World(label="glyph", glyph_size=0.12),
        "spurious background 0.95": World(shapes=("star", "circle", "cross"), spurious=0.95),
        "companion cue 1.0": World(spurious=1.0, spurious_cue="companion", num_objects=(1, 2)),
        "camera: zoom, shift, turn, light": World(
            view_zoom=(0.7, 1.4), view_shift=0.15, view_angle_deg=40.0, view_brightness=(0.5, 1.3)
        ),
        "4 identities, seen again": World(label="identity", num_identities=4),
        "Zipf imbalance, skew 2": World(imbalance="zipf", skew=2.0),
        "held-out pairs: subjects of the unseen world": World(
            held_out=("red star", "blue circle", "green cross"), pairs="unseen"
        ),
    }
    for label, world in worlds.items():
        names = [world.class_names[world.class_of(i)] for i in range(COLUMNS)]
        sheet.append((label, [_drawn(world.scene(i), names[i]) for i in range(COLUMNS)]))
    shapes = Scenes(image_size=55, scale_range=(0.5, 1.0), aspect_range=(1 / 3, 3.0))
    tiles = [(shapes[i]["image"], "{}x{}".format(*shapes.shape_of(i))) for i in range(COLUMNS)]
    sheet.append(("scale 0.5 to 1, aspect 1/3 to 3: pixels", tiles))
    years = Scenes(drift=1.0, num_objects=(1, 1))
    order = sorted(range(COLUMNS), key=years.time_of)
    tiles = [_drawn(years.scene(i), f"time {years.time_of(i):.2f}") for i in order]
    sheet.append(("drift 1.0, by time", tiles))
    for kind in LABEL_NOISE:
        source = Scenes(label_noise=0.4, label_noise_kind=kind, features=("label", "clean_label"))
        tiles = []
        for i in range(COLUMNS):
            label_name, true = (source.class_names[int(n)] for n in source[i].values())
            tiles.append(
                _drawn(
                    source.scene(i), label_name if label_name == true else f"{label_name} ({true})"
                )
            )
        sheet.append((f"{kind} label noise 0.4: label (truth)", tiles))
    tiles = []
    for kind in CAPTION_NOISE:
        source = Scenes(num_objects=(2, 3), caption_noise=1.0, caption_noise_kind=kind)
        for i in (2, 4):
            scene_i = source.scene(i)
            tiles.append(_drawn(scene_i, f"{kind}: {caption(source.captioned(i, scene_i))}"))
    sheet.append(("caption noise", tiles))
    raters = Scenes(num_raters=5, rater_accuracy=0.6)
    tiles = []
    for i in range(COLUMNS):
        called = raters.votes(i, raters.label_of(raters.scene(i)))
        tiles.append(_drawn(raters.scene(i), ", ".join(raters.class_names[c] for c in called)))
    sheet.append(("votes of 5 raters, accuracy 0.6", tiles))
    views = Scenes(
        num_views=6, view_zoom=(0.8, 1.3), view_shift=0.1, view_angle_deg=30, view_backgrounds=True
    )
    view_scenes = [each for i in (0, 6) for each in views.views(i, views.scene(i))]
    sheet.append(("views of one scene, own grounds", [_drawn(each) for each in view_scenes]))
    sheet.append(
        (
            "domains",
            [
                _drawn(dataclasses.replace(each, style=style, style_seed=k), style)
                for style in words.STYLES
                for k, each in enumerate((scene, plain.scene(3)))
            ],
        )
    )
    sheet.append(
        (
            "generator artefacts, strength 0.7",
            [
                _drawn(dataclasses.replace(scene, artefact=Artefact(kind, 0.7)), kind)
                for kind in words.ARTEFACTS
            ],
        )
    )
    doubles = World(num_objects=(2, 3))
    tiles = []
    for i in range(4):
        first = doubles.scene(i)
        tiles.append(_drawn(first, "original"))
        for kind in ("view", "attribute"):
            u = doubles.uniforms(i, "sheet", 192)
            tiles.append(_drawn(near_duplicate(doubles, first, kind, u), kind))
    sheet.append(("near-duplicates", tiles))
    for count in (1, 2):
        triplets = Triplets(num_edits=count, num_distractors=4)
        tiles = []
        for i in (0, 3):
            each = triplets.triplet(i)
            tiles += [_drawn(each.reference, each.modifier), _drawn(each.target, "target")]
            tiles += [_drawn(s, k) for s, k in zip(each.distractors, each.kinds, strict=True)]
        sheet.append((f"edit triplets, {count} edit{'s' * (count > 1)}", tiles))
    for motions in (("right", "grow"), ("orbit", "clockwise")):
        tiles = []
        for motion in motions:
            clips = Clips(num_frames=6, motions=(motion,), num_objects=(2, 2))
            tiles += [_drawn(frame, motion) for frame in clips.clip(1)]
        sheet.append((f"clips: {' and '.join(motions)}", tiles))
    tiles = []
    for i in range(4):
        ink = draw_strokes(strokes(plain.scene(i)), TILE)
        tiles.append((np.stack([ink] * 3, 2), f"scene {i}"))
    sheet.append(("vector strokes", tiles))
    return sheet


def draw_sheet(content: Sequence[Row]) -> Image.Image:
    """The rows as one picture: labels on the left, words under every tile."""
    font = ImageFont.load_default(10)
    line = 11
    heights = []
    for _, tiles in content:
        lines = max(len(textwrap.wrap(text, 18)[:5]) for _, text in tiles)
        heights.append(TILE + line * lines + 2 * _GAP)
    width = _LABEL_WIDTH + COLUMNS * (TILE + _GAP) + _GAP
    picture = Image.new("RGB", (width, sum(heights) + _GAP), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    top = _GAP
    for (label, tiles), height in zip(content, heights, strict=True):
        pen.text(
            (_GAP, top), "\n".join(textwrap.wrap(label, 30)), (0, 0, 0), ImageFont.load_default(12)
        )
        for k, (image, text) in enumerate(tiles[:COLUMNS]):
            left = _LABEL_WIDTH + k * (TILE + _GAP)
            picture.paste(Image.fromarray(image), (left, top))
            lines = textwrap.wrap(text, 18)[:5]
            pen.multiline_text(
                (left, top + TILE + 1), "\n".join(lines), (70, 70, 70), font, spacing=1
            )
        top += height
    return picture


def save_sheet(path: str | pathlib.Path) -> None:
    """Writes the contact sheet as an image file."""
    draw_sheet(rows()).save(path)

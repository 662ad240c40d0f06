"""Short films: a scene whose objects move, with boxes and masks of every object in every frame.

Motions come in pairs that are the same film run backwards, so no single frame tells them apart.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from vision.config.ranges import Ge, NonEmpty, checked, one_of
from vision.data.source import SourceInfo
from vision.data.sources.scenes.draws import choice, turn
from vision.data.sources.scenes.labels import LABELS
from vision.data.sources.scenes.reader import CARD, SceneReader
from vision.data.sources.scenes.record import Object, Scene, cos_sin
from vision.data.sources.scenes.renderer import render
from vision.data.sources.scenes.vocabulary import check_one_of

MOTIONS = (
    *("still", "left", "right", "up", "down"),
    *("grow", "shrink", "clockwise", "anticlockwise", "orbit"),
)
REVERSED = {
    "left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink",
    "shrink": "grow", "clockwise": "anticlockwise", "anticlockwise": "clockwise", "still": "still",
}  # fmt: skip
"""The motion that a film shows when it is run backwards; an orbit has none here."""


def moved(thing: Object, motion: str, time: float) -> Object:
    """``thing`` at ``time`` 0..1 of ``motion``; the way leads through where the record
    has it, or as near as keeps it within the image.

    left, right, up, down travel 0.44 of the image; grow and shrink run between 0.6 and 1.4 times
    the size; the turns cover 120 degrees; an orbit goes once around a circle of radius 0.18.
    """
    check_one_of("motion", motion, MOTIONS)
    if motion == "still":
        return thing
    away = time - 0.5
    if motion in ("left", "right"):
        centre = min(max(thing.x, 0.42), 0.58)
        return dataclasses.replace(thing, x=centre + 0.44 * (away if motion == "right" else -away))
    if motion in ("up", "down"):
        centre = min(max(thing.y, 0.42), 0.58)
        return dataclasses.replace(thing, y=centre + 0.44 * (away if motion == "down" else -away))
    if motion in ("grow", "shrink"):
        factor = 1 + 0.8 * (away if motion == "grow" else -away)
        return dataclasses.replace(thing, size=thing.size * factor)
    if motion == "orbit":
        cosine, sine = cos_sin(360 * time)
        y, x = (min(max(value, 0.36), 0.64) for value in (thing.y, thing.x))
        return dataclasses.replace(thing, y=y + 0.18 * sine, x=x + 0.18 * cosine)
    angle = 120 * (away if motion == "clockwise" else -away)
    return dataclasses.replace(thing, rotation_deg=thing.rotation_deg + angle)


def clip(scene: Scene, motions: Sequence[str], num_frames: int) -> tuple[Scene, ...]:
    """``num_frames`` scenes in which ``objects[k]`` does ``motions[k]``.

    Raises:
      ValueError: another number of motions than objects, an unknown one, or fewer than 2 frames.
    """
    if len(motions) != len(scene.objects):
        raise ValueError(f"{len(motions)} motions for {len(scene.objects)} objects")
    if num_frames < 2:
        raise ValueError(f"num_frames={num_frames!r} must be at least 2")
    frames = []
    for frame in range(num_frames):
        time = frame / (num_frames - 1)
        objects = tuple(
            moved(thing, motion, time) for thing, motion in zip(scene.objects, motions, strict=True)
        )
        frames.append(dataclasses.replace(scene, objects=objects))
    return tuple(frames)


def film(
    scene: Scene, motions: Sequence[str], num_frames: int
) -> tuple[tuple[Scene, ...], tuple[tuple[str, int, int], ...]]:
    """The subject of ``scene`` does one motion after another, ``num_frames`` each.

    Returns the frames and the segments (motion, first frame, one past the last frame).
    """
    frames: list[Scene] = []
    segments = []
    for motion in motions:
        still = ["still"] * (len(scene.objects) - 1)
        segments.append((motion, len(frames), len(frames) + num_frames))
        frames += clip(scene, [motion, *still], num_frames)
    return tuple(frames), tuple(segments)


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class Clips(SceneReader):
    """Clips as a source; the fields not named here are those of ``World`` and ``SceneReader``.

    An example holds, for T frames and K objects at most: ``video`` uint8[T, H, W, 3],
    ``instances`` uint8[T, H, W] (0 background, k + 1 object k), ``boxes`` int32[T, K, 4],
    ``visible`` float32[T, K], ``valid`` bool[K], ``label`` int32, ``motion`` int32 (of the
    subject, in the order of ``motions``) and ``appearance`` int32 (the world's own label).

    Attributes:
      num_frames: T, at least 2.
      motions: what the subject may do; every motion comes equally often.
      others_move: whether the other objects move too, each in its own way.
      target: what ``label`` is, ``motion`` or ``label`` (the world's own).
    """

    num_frames: Annotated[int, Ge(2)] = 8
    motions: NonEmpty[tuple[Annotated[str, one_of(MOTIONS)], ...]] = MOTIONS
    others_move: bool = False
    target: Literal["motion", "label"] = "motion"

    @property
    def info(self) -> SourceInfo:
        height, width = self.image_shape
        frames, most = self.num_frames, self.max_objects
        names = self.motions if self.target == "motion" else self.class_names
        return SourceInfo(
            self.name,
            self.num_examples,
            names,
            {
                "video": f"uint8[{frames},{height},{width},3], 0..255, RGB",
                "instances": f"uint8[{frames},{height},{width}], 0 background, k + 1 object k",
                "boxes": f"int32[{frames},{most},4]: y0, x0, y1, x1 in pixels",
                "visible": f"float32[{frames},{most}], 0..1, uncovered share of the object",
                "valid": f"bool[{most}], which rows are objects",
                "label": f"int32, 0..{len(names) - 1}, {self.target}",
                "motion": f"int32, 0..{len(self.motions) - 1}, what the subject does",
                "appearance": f"int32, 0..{len(self.class_names) - 1}, {self.label}",
            },
            **CARD,
        )

    def motions_of(self, index: int) -> tuple[str, ...]:
        """What every object of clip ``index`` does, the subject first."""
        count = len(self.motions)
        offset, step = turn(self.seed, f"{self.split}/motion", index // count, count)
        subject = self.motions[(offset + step * (index % count)) % count]
        others = len(self.scene(index).objects) - 1
        u = self.uniforms(index, "motions", others)
        return (
            subject,
            *(choice(self.motions, number) if self.others_move else "still" for number in u),
        )

    def clip(self, index: int) -> tuple[Scene, ...]:
        """The frames of clip ``index``, before they are drawn."""
        return clip(self.scene(index), self.motions_of(index), self.num_frames)

    @functools.cached_property
    def _class_numbers(self) -> dict[str, int]:
        return {name: c for c, name in enumerate(self.class_names)}

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = self.checked(index)
        frames = self.clip(index)
        drawn = [render(frame, self.image_size) for frame in frames]
        count = len(frames[0].objects)
        boxes = np.zeros((self.num_frames, self.max_objects, 4), np.int32)
        visible = np.zeros((self.num_frames, self.max_objects), np.float32)
        for t, frame in enumerate(drawn):
            boxes[t, :count], visible[t, :count] = frame.boxes, frame.visible
        motion = np.int32(self.motions.index(self.motions_of(index)[0]))
        # The motion may change a size or a place: what a thing is, is read before it moves.
        name = LABELS[self.label].read(self.scene(index))
        appearance = np.int32(self._class_numbers[name])
        return {
            "video": np.stack([frame.image for frame in drawn]),
            "instances": np.stack([frame.instances for frame in drawn]),
            "boxes": boxes,
            "visible": visible,
            "valid": np.arange(self.max_objects) < count,
            "label": motion if self.target == "motion" else appearance,
            "motion": motion,
            "appearance": appearance,
        }

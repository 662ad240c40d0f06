"""What is true of the examples of ``scenes``, and what is noise: labels, captions, views."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Annotated

import numpy as np

from vision.config.ranges import Fraction, Positive, PositiveRange, Rate, checked, one_of
from vision.data.sources.scenes import draws, noise, pen
from vision.data.sources.scenes.labels import LABELS
from vision.data.sources.scenes.reader import SceneReader
from vision.data.sources.scenes.record import Background, Scene, cos_sin


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class LabelledScenes(SceneReader):
    """The scenes of a world with labels, captions, raters and views: noisy ones where asked.

    What it says of example i is a pure function of the fields and i; splits are independent
    streams. The fields not named here are those of ``World`` and ``SceneReader``.

    Attributes:
      label_noise: share of examples whose ``label`` is wrong; ``clean_label`` stays true.
      label_noise_kind: ``symmetric`` (any other class) or ``asymmetric`` (always the class that
        ``noise.mistaken_for`` gives).
      caption_noise: share of examples whose captions are corrupted.
      caption_noise_kind: one of ``noise.CAPTION_NOISE``.
      duplicates: share of examples that are near-duplicates of an earlier one.
      duplicate_kind: ``view`` (the camera moves a little) or ``attribute`` (one thing changes).
      num_raters: length of ``votes``.
      rater_accuracy, rater_spread: raters are right with a probability of their own, accuracy
        give or take spread.
      num_views: pictures of the same scene in ``views``, by cameras within ``view_zoom``,
        ``view_shift``, ``view_angle_deg`` and ``view_brightness``.
      view_backgrounds: whether every view has a ground of its own.
      metadata_strength: share of examples whose ``metadata`` (place and season) goes with the
        class; the others have any.
      scale_range: pictures have the sides of ``image_size`` times a number between these.
      aspect_range: and are stretched to a ratio of width to height between these times that of
        ``image_size``, at equal area. Both are drawn per example, evenly in the logarithm; then
        pictures do not stack before an op has made them of one size.

    Raises:
      ValueError: an argument outside its range; the message names it and the valid values.
    """

    label_noise: Fraction = 0.0
    label_noise_kind: Annotated[str, one_of(noise.LABEL_NOISE)] = "symmetric"
    caption_noise: Fraction = 0.0
    caption_noise_kind: Annotated[str, one_of(noise.CAPTION_NOISE)] = "attribute"
    duplicates: Rate = 0.0
    duplicate_kind: Annotated[str, one_of(noise.DUPLICATES)] = "view"
    num_raters: Positive[int] = 5
    rater_accuracy: Fraction = 0.8
    rater_spread: Fraction = 0.1
    num_views: Positive[int] = 2
    view_backgrounds: bool = False
    metadata_strength: Fraction = 0.0
    scale_range: PositiveRange = (1.0, 1.0)
    aspect_range: PositiveRange = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        extremes = ((a, b) for a in self.scale_range for b in self.aspect_range)
        if min(min(self._stretched(*extreme)) for extreme in extremes) < 8:
            raise ValueError(
                f"image_size={self.image_size!r}, scale_range={self.scale_range!r} and "
                f"aspect_range={self.aspect_range!r} give sides of fewer than 8 pixels"
            )

    @property
    def one_shape(self) -> bool:
        """Whether all pictures have ``image_shape``."""
        return self.scale_range == self.aspect_range == (1.0, 1.0)

    def shape_of(self, index: int) -> tuple[int, int]:
        """Height and width in pixels of the picture of example ``index``."""
        if self.one_shape:
            return self.image_shape
        u = self.uniforms(index, "shape", 2)
        ranges = (self.scale_range, self.aspect_range)
        scale, aspect = (
            math.exp(draws.between((math.log(low), math.log(high)), number))
            for (low, high), number in zip(ranges, u, strict=True)
        )
        return self._stretched(scale, aspect)

    def _stretched(self, scale: float, aspect: float) -> tuple[int, int]:
        height, width = self.image_shape
        root = math.sqrt(aspect)
        # Rounded first, so that the last bit of a platform's libm decides no pixel.
        return round(round(height * scale / root, 6)), round(round(width * scale * root, 6))

    def scene(self, index: int) -> Scene:
        """Scene ``index``: a new one, or nearly that of ``duplicate_of(index)``."""
        original = self.duplicate_of(index)
        if original < 0:
            return super().scene(index)
        u = self.uniforms(index, "duplicate", 200)[8:]
        return noise.near_duplicate(self, super().scene(original), self.duplicate_kind, u)

    def duplicate_of(self, index: int) -> int:
        """The earlier example that example ``index`` nearly repeats; -1 for an original."""
        if not self.duplicates or not self._repeats(index):
            return -1
        earlier = int(self.uniforms(index, "duplicate", 2)[1] * index)
        while self._repeats(earlier):
            earlier -= 1
        return earlier

    def _repeats(self, index: int) -> bool:
        return index > 0 and self.uniforms(index, "duplicate", 1)[0] < self.duplicates

    def label_of(self, scene: Scene) -> int:
        """True class of ``scene`` in this source's order.

        Raises:
          ValueError: a scene whose answer is not one of ``class_names``.
        """
        name = LABELS[self.label].read(scene)
        if name not in self._class_numbers:
            raise ValueError(f"label={self.label!r} of the scene is {name!r}, not a class here")
        return self._class_numbers[name]

    @functools.cached_property
    def _class_numbers(self) -> dict[str, int]:
        return {name: c for c, name in enumerate(self.class_names)}

    @functools.cached_property
    def _partners(self) -> tuple[int, ...]:
        return noise.mistaken_for(self.class_names)

    @functools.cached_property
    def rater_accuracies(self) -> tuple[float, ...]:
        """How often every rater is right; the same in all splits."""
        u = draws.uniforms(self.seed, "raters", 0, "accuracy", self.num_raters).tolist()
        return tuple(noise.accuracies(self.rater_accuracy, self.rater_spread, u))

    def noisy_label(self, index: int, clean: int) -> int:
        """The label that example ``index`` of true class ``clean`` is given."""
        if not self.label_noise:
            return clean
        u = self.uniforms(index, "label noise", 2)
        return noise.flipped(clean, self._partners, self.label_noise, self.label_noise_kind, u)

    def votes(self, index: int, clean: int) -> np.ndarray:
        """What the raters call example ``index``, int32[num_raters]."""
        u = self.uniforms(index, "votes", 2 * self.num_raters)
        return noise.votes(clean, self._partners, self.rater_accuracies, u)

    def captioned(self, index: int, scene: Scene) -> Scene:
        """The scene that the captions of example ``index`` describe; ``scene`` if they are true."""
        if not self.caption_noise:
            return scene
        u = self.uniforms(index, "caption noise", 97)
        if u[0] >= self.caption_noise:
            return scene
        return noise.misdescribed(self, scene, self.caption_noise_kind, u[1:])

    def views(self, index: int, scene: Scene) -> tuple[Scene, ...]:
        """``scene`` as ``num_views`` cameras see it."""
        u = self.uniforms(index, "views", 9 * self.num_views)
        scenes = []
        for k in range(0, len(u), 9):
            ground = scene.background
            if self.view_backgrounds:
                kind = draws.choice(self.backgrounds, u[k + 5])
                ground = Background(kind, u[k + 6], u[k + 7], ground.brightness)
            view = self.draw_view(u[k : k + 5])
            scenes.append(dataclasses.replace(scene, background=ground, view=view))
        return tuple(scenes)

    def strokes(self, scene: Scene) -> np.ndarray:
        """``scene`` as a line drawing; see ``pen.stroke_array`` for the columns."""
        most = self.max_objects * pen.MAX_POINTS
        return pen.stroke_array(pen.strokes(scene), most)

    def metadata(self, index: int, clean: int) -> np.ndarray:
        """Where and when example ``index`` was seen, float32[4]: latitude and longitude in
        -1..1, sine and cosine of the season. With probability ``metadata_strength`` they lie
        near the place and season of class ``clean``."""
        u = self.uniforms(index, "metadata", 7)
        if u[0] < self.metadata_strength:
            centre = draws.uniforms(self.seed, "metadata", clean, "home", 3).tolist()
            u = [u[0], *((a + 0.1 * (b - 0.5)) % 1.0 for a, b in zip(centre, u[4:], strict=True))]
        cosine, sine = cos_sin(360 * u[3])
        return np.array((2 * u[1] - 1, 2 * u[2] - 1, sine, cosine), np.float32)

    def template_of(self, index: int) -> int:
        """Which opening the captions of example ``index`` use."""
        return int(draws.spread(self.seed, f"{self.split}/template", index) * 2**16)

"""The record of a scene: everything that the picture, the labels and the words are read from.

All records are frozen: an edit is ``dataclasses.replace``. Lengths are shares of the image's
short side for sizes, and of the height or width for positions, so a record can be rendered at
any resolution.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

from vision.config.ranges import Fraction, Ge, Lt, NonNegative, Positive, checked
from vision.data.sources.scenes import vocabulary as words


@dataclasses.dataclass(frozen=True, slots=True)
@checked
class Object:
    """One thing in a scene.

    Attributes:
      shape, colour, variant, texture: names from the vocabulary.
      size: radius of the circle around the object, share of the short side of the image.
      y, x: centre, share of height and width, 0 at the top left.
      rotation_deg: clockwise turn in degrees.
      layer: objects of a higher layer cover those of a lower one; equal layers in order.
      texture_period: distance between two stripes, checks or dots, share of the short side.
      texture_angle_deg: direction of the texture, relative to the object, in degrees.
    """

    shape: words.Shape
    colour: words.Colour
    variant: words.Variant = "solid"
    texture: words.Texture = "plain"
    size: Positive[float] = 0.2
    y: float = 0.5
    x: float = 0.5
    rotation_deg: float = 0.0
    layer: int = 0
    texture_period: Positive[float] = 0.08
    texture_angle_deg: float = 0.0

    @property
    def family(self) -> str:
        """Coarsest level of the hierarchy."""
        return words.FAMILY_OF[self.shape]

    @property
    def leaf(self) -> str:
        """Finest level of the hierarchy, such as ``outlined star``."""
        return f"{self.variant} {self.shape}"

    @property
    def size_name(self) -> str:
        """``small``, ``medium`` or ``large``; the limits lie between the sampled ranges."""
        return "small" if self.size < 0.1375 else "medium" if self.size < 0.2025 else "large"

    @property
    def quadrant(self) -> str:
        """``top left``, ``top right``, ``bottom left`` or ``bottom right``."""
        return words.QUADRANTS[2 * (self.y >= 0.5) + (self.x >= 0.5)]

    @property
    def position(self) -> str:
        """Cell of a 3x3 grid over the image: ``top left``, ``top``, ..., ``centre``."""
        row, column = (min(max(int(3 * value), 0), 2) for value in (self.y, self.x))
        return words.POSITIONS[3 * row + column]


@dataclasses.dataclass(frozen=True, slots=True)
@checked
class Background:
    """What lies behind the objects: a kind of ground, where its pattern starts, how light it is.

    ``offset_y``, ``offset_x`` are shares of the pattern's period (which is the short side of the
    image); ``brightness`` multiplies the pattern, 1 leaves it as it is.

    Attributes:
      kind: of ground.
      offset_y, offset_x: where the pattern starts, shares of its period.
      brightness: factor of the pattern.
    """

    kind: words.BackgroundKind = "paper"
    offset_y: float = 0.0
    offset_x: float = 0.0
    brightness: NonNegative[float] = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
@checked
class View:
    """A camera above the scene; the default changes nothing.

    A point p of the scene appears at 0.5 + zoom * R(angle_deg) (p - 0.5) + shift. ``zoom``
    scales objects, ``shift_y`` and ``shift_x`` are shares of height and width, ``angle_deg``
    turns clockwise, ``brightness`` multiplies all pixels.

    Attributes:
      zoom: size of objects over that without a camera.
      shift_y, shift_x: shares of height and width.
      angle_deg: clockwise.
      brightness: factor of all pixels.
    """

    zoom: Positive[float] = 1.0
    shift_y: float = 0.0
    shift_x: float = 0.0
    angle_deg: float = 0.0
    brightness: NonNegative[float] = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
@checked
class Glyph:
    """A tiny mark of 3x3 cells, white on black, drawn over everything without antialiasing.

    ``pattern`` is an index into ``vocabulary.GLYPHS``; ``y``, ``x`` is the centre (shares of
    height and width); ``size`` is the side of the mark as a share of the short side (a cell has
    at least one pixel).

    Attributes:
      pattern: index into ``vocabulary.GLYPHS``.
      y, x: centre, shares of height and width.
      size: side of the mark over the short side of the image.
    """

    pattern: Annotated[int, Ge(0), Lt(len(words.GLYPHS))]
    y: float = 0.5
    x: float = 0.5
    size: Positive[float] = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
@checked
class Artefact:
    """A trace that an image generator or a bad codec leaves in the pixels.

    ``strength`` 0 changes nothing and 1 is plainly visible; ``seed`` chooses the phase or, for
    ``fingerprint``, the generator.

    Attributes:
      kind: of trace.
      strength: 0..1.
      seed: of the phase, or of the generator for ``fingerprint``.
    """

    kind: words.ArtefactKind
    strength: Fraction = 0.5
    seed: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
@checked
class Scene:
    """A picture before it is drawn.

    Attributes:
      objects: the things that labels and captions describe; ``objects[0]`` is the subject.
      background: the ground behind them.
      view: the camera.
      clutter: small things that no label or caption describes; drawn beneath the objects.
      glyph: a tiny mark, or None.
      style: rendering domain, one of ``vocabulary.STYLES``.
      style_seed: chooses the grain of noisy, painterly and swapped styles.
      artefact: a generator's trace, or None for a real picture.
    """

    objects: tuple[Object, ...]
    background: Background = Background()
    view: View = View()
    clutter: tuple[Object, ...] = ()
    glyph: Glyph | None = None
    style: words.Style = "clean"
    style_seed: int = 0
    artefact: Artefact | None = None

    @property
    def subject(self) -> Object:
        """The object that single-label tasks ask about; ``ValueError`` in an empty scene."""
        if not self.objects:
            raise ValueError("an empty scene has no subject")
        return self.objects[0]

    def placed(self) -> tuple[Object, ...]:
        """The objects as the camera sees them: view applied to position, size and rotation."""
        return tuple(in_view(thing, self.view) for thing in self.objects)


STILL = View()


def in_view(thing: Object, view: View) -> Object:
    """``thing`` as ``view`` shows it. The image is taken as square for the turn of positions."""
    if (view.zoom, view.shift_y, view.shift_x, view.angle_deg) == (1.0, 0.0, 0.0, 0.0):
        return thing
    cosine, sine = cos_sin(view.angle_deg)
    y, x = thing.y - 0.5, thing.x - 0.5
    return dataclasses.replace(
        thing,
        y=0.5 + view.zoom * (cosine * y + sine * x) + view.shift_y,
        x=0.5 + view.zoom * (cosine * x - sine * y) + view.shift_x,
        size=thing.size * view.zoom,
        texture_period=thing.texture_period * view.zoom,
        rotation_deg=thing.rotation_deg + view.angle_deg,
    )


def out_of_view(y: float, x: float, view: View) -> tuple[float, float]:
    """The point of the scene that ``view`` shows at (y, x); the reverse of ``in_view``."""
    cosine, sine = cos_sin(view.angle_deg)
    y, x = (y - 0.5 - view.shift_y) / view.zoom, (x - 0.5 - view.shift_x) / view.zoom
    return 0.5 + cosine * y - sine * x, 0.5 + cosine * x + sine * y


def cos_sin(angle_deg: float) -> tuple[float, float]:
    """Cosine and sine, rounded so that the last bit of a platform's libm reaches no pixel."""
    angle = math.radians(angle_deg % 360.0)
    return round(math.cos(angle), 7), round(math.sin(angle), 7)

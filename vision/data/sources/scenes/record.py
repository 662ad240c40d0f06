"""The record of a scene: everything that the picture, the labels and the words are read from.

All records are frozen: an edit is ``dataclasses.replace``. Lengths are shares of the image's
short side for sizes, and of the height or width for positions, so a record can be rendered at
any resolution.
"""

from __future__ import annotations

import dataclasses
import math

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.vocabulary import one_of


@dataclasses.dataclass(frozen=True, slots=True)
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

    shape: str
    colour: str
    variant: str = "solid"
    texture: str = "plain"
    size: float = 0.2
    y: float = 0.5
    x: float = 0.5
    rotation_deg: float = 0.0
    layer: int = 0
    texture_period: float = 0.08
    texture_angle_deg: float = 0.0

    def __post_init__(self) -> None:
        one_of("shape", self.shape, words.SHAPES)
        one_of("colour", self.colour, words.COLOURS)
        one_of("variant", self.variant, words.VARIANTS)
        one_of("texture", self.texture, words.TEXTURES)
        if not self.size > 0:
            raise ValueError(f"size={self.size!r} must be positive")
        if not self.texture_period > 0:
            raise ValueError(f"texture_period={self.texture_period!r} must be positive")

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
class Background:
    """What lies behind the objects: a kind of ground, where its pattern starts, how light it is.

    ``offset_y``, ``offset_x`` are shares of the pattern's period (which is the short side of the
    image); ``brightness`` multiplies the pattern, 1 leaves it as it is.
    """

    kind: str = "paper"
    offset_y: float = 0.0
    offset_x: float = 0.0
    brightness: float = 1.0

    def __post_init__(self) -> None:
        one_of("background", self.kind, words.BACKGROUNDS)
        if not self.brightness >= 0:
            raise ValueError(f"brightness={self.brightness!r} must not be negative")


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A camera above the scene; the default changes nothing.

    A point p of the scene appears at 0.5 + zoom * R(angle_deg) (p - 0.5) + shift. ``zoom``
    scales objects, ``shift_y`` and ``shift_x`` are shares of height and width, ``angle_deg``
    turns clockwise, ``brightness`` multiplies all pixels.
    """

    zoom: float = 1.0
    shift_y: float = 0.0
    shift_x: float = 0.0
    angle_deg: float = 0.0
    brightness: float = 1.0

    def __post_init__(self) -> None:
        if not self.zoom > 0:
            raise ValueError(f"zoom={self.zoom!r} must be positive")
        if not self.brightness >= 0:
            raise ValueError(f"brightness={self.brightness!r} must not be negative")


@dataclasses.dataclass(frozen=True, slots=True)
class Glyph:
    """A tiny mark of 3x3 cells, white on black, drawn over everything without antialiasing.

    ``pattern`` is an index into ``vocabulary.GLYPHS``; ``y``, ``x`` is the centre (shares of
    height and width); ``size`` is the side of the mark as a share of the short side (a cell has
    at least one pixel).
    """

    pattern: int
    y: float = 0.5
    x: float = 0.5
    size: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.pattern < len(words.GLYPHS):
            raise ValueError(f"pattern={self.pattern!r} must lie in 0..{len(words.GLYPHS) - 1}")
        if not self.size > 0:
            raise ValueError(f"size={self.size!r} must be positive")


@dataclasses.dataclass(frozen=True, slots=True)
class Artefact:
    """A trace that an image generator or a bad codec leaves in the pixels.

    ``strength`` 0 changes nothing and 1 is plainly visible; ``region`` says which pixels are
    touched; ``seed`` chooses the phase or, for ``fingerprint``, the generator.
    """

    kind: str
    strength: float = 0.5
    region: str = "everywhere"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("artefact", self.kind, words.ARTEFACTS)
        one_of("region", self.region, words.REGIONS)
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength={self.strength!r} must lie in [0, 1]")


@dataclasses.dataclass(frozen=True, slots=True)
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
    style: str = "clean"
    style_seed: int = 0
    artefact: Artefact | None = None

    def __post_init__(self) -> None:
        one_of("style", self.style, words.STYLES)

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

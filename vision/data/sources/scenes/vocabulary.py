"""The closed vocabulary of scenes: every attribute value by name, and the shape hierarchy.

The hierarchy has three levels: family ("starry"), shape ("star") and leaf ("outlined star",
a shape in one of the variants). The order of every tuple is the label order.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated

from vision.config.ranges import one_of

FAMILIES = ("round", "angular", "starry", "barred")
SHAPES = (
    *("circle", "pill", "crescent", "drop"),
    *("triangle", "square", "rhombus", "hexagon"),
    *("spark", "star", "burst", "flower"),
    *("cross", "tee", "elbow", "arrow"),
)
FAMILY_OF = MappingProxyType({name: FAMILIES[i // 4] for i, name in enumerate(SHAPES)})
VARIANTS = ("solid", "outlined", "bordered")
LEAVES = tuple(f"{variant} {shape}" for shape in SHAPES for variant in VARIANTS)
TEXTURES = ("plain", "striped", "checked", "dotted")
SIZES = ("small", "medium", "large")
SIZE_RANGES = MappingProxyType(
    {"small": (0.10, 0.125), "medium": (0.15, 0.185), "large": (0.22, 0.27)}
)
"""Radius of an object as a share of the short side of the image, by size name."""

COLOURS = (
    *("red", "orange", "yellow", "green", "cyan"),
    *("blue", "purple", "pink", "brown", "white"),
)
PALETTE = MappingProxyType(
    {
        "red": (214, 36, 40),
        "orange": (250, 132, 20),
        "yellow": (252, 222, 40),
        "green": (34, 150, 60),
        "cyan": (24, 202, 212),
        "blue": (32, 72, 214),
        "purple": (126, 46, 178),
        "pink": (250, 128, 190),
        "brown": (134, 82, 44),
        "white": (250, 250, 248),
    }
)
"""RGB of every colour, 0..255."""

BACKGROUNDS = (
    *("paper", "sky", "sand", "grass", "water"),
    *("brick", "wood", "night", "stone", "tile"),
)
STYLES = ("clean", "sketch", "noisy", "swapped", "greyscale", "painterly")
ARTEFACTS = ("checkerboard", "spectral", "blur", "resample", "blocks", "fingerprint")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
POSITIONS = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
GLYPHS = (
    (0b010, 0b111, 0b010),
    (0b101, 0b010, 0b101),
    (0b111, 0b101, 0b111),
    (0b100, 0b100, 0b111),
    (0b111, 0b010, 0b010),
    (0b111, 0b000, 0b111),
    (0b101, 0b101, 0b101),
    (0b011, 0b110, 0b011),
)
"""Marks of 3x3 cells; each row is three bits, the left cell first."""


Shape = Annotated[str, one_of(SHAPES)]
Colour = Annotated[str, one_of(COLOURS)]
Variant = Annotated[str, one_of(VARIANTS)]
Texture = Annotated[str, one_of(TEXTURES)]
Size = Annotated[str, one_of(SIZES)]
BackgroundKind = Annotated[str, one_of(BACKGROUNDS)]
Style = Annotated[str, one_of(STYLES)]
ArtefactKind = Annotated[str, one_of(ARTEFACTS)]


def check_one_of(argument: str, value: object, valid: tuple[str, ...]) -> None:
    """Raises ``ValueError`` naming ``argument`` unless ``value`` is one of ``valid``."""
    if value not in valid:
        raise ValueError(f"{argument}={value!r}; valid values: {', '.join(valid)}")

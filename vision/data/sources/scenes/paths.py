"""The way from the root of the hierarchy of scenes to every class."""

from __future__ import annotations

from vision.data.sources.scenes import vocabulary as words


def class_paths(label: str = "leaf") -> dict[str, tuple[str, ...]]:
    """Ancestors, root left out, of every class: ``{"star": ("starry",), ...}``.

    Args:
      label: what the classes are: ``shape`` (ancestor: the family) or ``leaf`` (family, shape).
    """
    words.check_one_of("label", label, ("shape", "leaf"))
    if label == "shape":
        return {shape: (words.FAMILY_OF[shape],) for shape in words.SHAPES}
    return {
        f"{variant} {shape}": (words.FAMILY_OF[shape], shape)
        for shape in words.SHAPES
        for variant in words.VARIANTS
    }

"""Which name map a tower has in a library, and where in a file its tensors stand."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vision.core.net import Tower
from vision.core.schema import locate
from vision.core.stored import flatten
from vision.models.vit import ViT
from vision.weights.families import vit
from vision.weights.fit import fit_patches, fit_positions
from vision.weights.mapping import Entry, Names, WeightsError

LIBRARIES = ("timm", "open_clip", "transformers", "big_vision")

# Library and class of a tower to the function that gives its names.
_FAMILIES: Mapping[tuple[str, str], str] = {
    ("timm", "BiT"): "bit.timm_bit",
    ("timm", "ConvNeXt"): "convnext.timm_convnext",
    ("timm", "DenseNet"): "densenet.timm_densenet",
    ("timm", "EfficientNet"): "mobilenet.timm_mobilenet",
    ("timm", "InceptionResNetV2"): "inception.timm_inception_resnet_v2",
    ("timm", "InceptionV4"): "inception.timm_inception_v4",
    ("timm", "MobileNetV2"): "mobilenet.timm_mobilenet",
    ("timm", "MobileNetV3"): "mobilenet.timm_mobilenet",
    ("timm", "ResNet"): "resnet.timm_resnet",
    ("timm", "Swin"): "swin.timm_swin",
    ("timm", "VGG"): "vgg.timm_vgg",
}
# What the names of an image tower may begin with, the longest first.
_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "timm": (),
    "open_clip": ("visual.trunk.", "visual."),
    "transformers": ("vision_model.", "vit.", "deit.", "dinov2.", "dinov2_with_registers."),
    "big_vision": ("opt/target/", "params/img/", "img/", "params/"),
}
# What else the files of a complete image-text model hold.
_OTHERS: Mapping[str, str] = {
    "timm": r"(?!)",
    "open_clip": r"(text|transformer|token_embedding|ln_final|logit)[._].*|positional_embedding"
    r"|text_projection|visual\.head\..*|attn_mask",
    "transformers": r"(text_model|text_projection|visual_projection)\..*|logit_(scale|bias)",
    "big_vision": r"(params/)?(txt/.*|t|b)|opt/(?!target/).*",
}


def names_of(library: str, tower: Tower, keys: Iterable[str]) -> Names:
    """The name map of an image tower in a file of a library that has tensors called ``keys``.

    Raises:
      WeightsError: the library's naming of this kind of tower is not known.
    """
    keys = tuple(keys)
    prefix = next((p for p in _PREFIXES[library] if any(k.startswith(p) for k in keys)), "")
    inner = tuple(key.removeprefix(prefix) for key in keys)
    # open_clip keeps towers of timm's in timm's naming.
    source = "timm" if prefix == "visual.trunk." else library
    names = _family(source, tower)(tower, inner)
    present = set(keys)

    def place(name: str) -> str:
        # A classifier beside the tower it belongs to has no prefix.
        return name if name in present and prefix + name not in present else prefix + name

    entries = tuple(
        dataclasses.replace(entry, theirs=tuple(map(place, entry.theirs)))
        for entry in names.entries
    )
    optional = f"(?:{re.escape(prefix)})?"
    ignored = {f"{optional}(?:{pattern})": why for pattern, why in names.ignored.items()}
    if prefix:
        ignored[_OTHERS[library]] = "another part of a model of which this tower is one"
    return Names(entries, ignored)


def _family(library: str, tower: Tower) -> Callable[[Any, Sequence[str]], Names]:
    if isinstance(tower, ViT):
        known: dict[str, Callable[[ViT, Sequence[str]], Names]] = {
            "timm": lambda tower, keys: vit.timm_vit(tower),
            "open_clip": lambda tower, keys: vit.open_clip_vit(tower),
            "transformers": vit.transformers_names,
            "big_vision": vit.big_vision_vit,
        }
        return known[library]
    kind = type(tower).__name__
    path = _FAMILIES.get((library, kind))
    if path is None:
        known_ones = [other for name, other in _FAMILIES if name == library] + ["ViT"]
        raise WeightsError(
            f"{library} has no name map for a {kind}; it has for {', '.join(sorted(known_ones))}"
        )
    function = locate(f"vision.weights.families.{path}")
    return lambda tower, keys: function(tower)


def own_names(tower: Tower, target: Any, prefix: Mapping[str, str]) -> Names:
    """Our own names, of a file or a run, in which ``params`` and ``model_state`` may go deeper.

    Args:
      tower: ours; positions and patches of a ViT may have another size.
      target: ``{"params": tree, "model_state": tree}``.
      prefix: ``params`` and ``model_state`` to what they are called there.
    """
    fits = {"params.pos_embed": fit_positions, "params.patch_embed.kernel": fit_patches}
    entries = []
    for ours in flatten(target):
        root, _, rest = ours.partition(".")
        fit = fits.get(ours) if isinstance(tower, ViT) else None
        entries.append(Entry(ours, (f"{prefix[root]}.{rest}",), fit=fit))
    return Names(tuple(entries))

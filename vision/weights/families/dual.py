"""Projections, temperature and bias of complete image-text models, beside their two towers.

Fields of a ``Dual`` that give their embeddings, beside those of its towers (see ``vit`` and
``text``):

    CLIP, anywhere     width: that of the joint space
    SigLIP, SigLIP2    width: that of the image tower, image_projection=False, bias=True
    EVA-02-CLIP        width: that of the joint space, bias="image"

Temperature and bias are of the loss: ``Contrast(criterion=Softmax())`` learns the temperature,
``Sigmoid`` the bias too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from vision.models.dual import Dual
from vision.models.vit import ViT
from vision.weights.mapping import LINEAR, SAME, Form, MapEntry, Names, Tensor, reshaped

# Library and side to the names that its projection may have. Those that end in a dot or a slash are
# of a layer; another is a matrix (in, out).
_PROJECTIONS: Mapping[tuple[str, str], tuple[str, ...]] = {
    # The last is the classifier of timm's tower, as EVA-02-CLIP has it.
    ("open_clip", "image"): ("visual.proj", "visual.head.proj.", "visual.trunk.head."),
    ("open_clip", "text"): (
        "text_projection",
        "text.text_projection",
        "text_projection.",
        "text.text_projection.",
        "text.proj.",
    ),
    ("transformers", "image"): ("visual_projection.",),
    ("transformers", "text"): ("text_projection.", "text_model.head."),
    ("big_vision", "image"): ("params/img/head/", "img/head/"),
    ("big_vision", "text"): ("params/txt/head/", "txt/head/"),
}
# A learned parameter of the loss to the names that it may have.
_LEARNED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "open_clip": {"log_scale": ("logit_scale",), "bias": ("logit_bias",)},
    "transformers": {"log_scale": ("logit_scale",), "bias": ("logit_bias",)},
    "big_vision": {"log_scale": ("params/t", "t"), "bias": ("params/b", "b")},
}


def joint_names(
    library: str, dual: Dual, tensors: Mapping[str, Tensor], learned: Collection[str] = ()
) -> Names:
    """Projections, and temperature and bias of the loss.

    Args:
      library: ``open_clip``, ``transformers`` or ``big_vision``.
      dual: ours.
      tensors: the file, whose names tell which of the library's layouts it has.
      learned: learned parameters of the loss: ``log_scale``, ``bias``. Those that the file lacks
        have no entry.
    """
    entries: list[MapEntry] = []
    for side in ("image", "text"):
        if dual.width is not None and (side == "text" or dual.image_projection):
            bias = dual.bias in (True, side)
            entries += _projection(side, _PROJECTIONS[library, side], tensors, bias)
    ignored = {}
    if library == "open_clip":
        ignored[r"text_decoder\..*"] = "writes captions; of CoCa both towers are read"
    for name, candidates in _LEARNED[library].items():
        theirs = _first(candidates, tensors)
        if name not in learned:
            ignored[theirs] = "of a loss that learns it; the one here does not"
        elif theirs in tensors:
            form = reshaped("a number", (), tuple(tensors[theirs].shape))
            entries.append(MapEntry(f"objective.contrast.{name}", (theirs,), form))
    return Names(tuple(entries), ignored)


def _projection(
    side: str, candidates: tuple[str, ...], tensors: Mapping[str, Tensor], bias: bool
) -> list[MapEntry]:
    kernels = {_kernel(name)[0]: name for name in candidates}
    layer = kernels[_first(tuple(kernels), tensors)]
    kernel, form = _kernel(layer)
    entries = [MapEntry(f"params.{side}_projection.kernel", (kernel,), form)]
    if bias:
        theirs = layer + ("bias" if layer[-1] in "./" else ".bias")
        entries.append(MapEntry(f"params.{side}_projection.bias", (theirs,)))
    return entries


def _kernel(layer: str) -> tuple[str, Form]:
    if layer.endswith("/"):
        return f"{layer}kernel", SAME
    return (f"{layer}weight", LINEAR) if layer.endswith(".") else (layer, SAME)


def _first(candidates: tuple[str, ...], tensors: Mapping[str, Tensor]) -> str:
    return next((name for name in candidates if name in tensors), candidates[0])


def usual(library: str, dual: Dual) -> dict[str, np.ndarray]:
    """Empty tensors whose names select the usual layout of a library for such a model.

    SigLIP of open_clip has its image tower from timm and its text tower below ``text.``.
    """
    siglip = isinstance(dual.image, ViT) and dual.image.pool == "map"
    with_axis = library == "big_vision" or (siglip and library == "transformers")
    names: Mapping[str, tuple[str, ...]] = {
        "open_clip": ("visual.trunk.", "text.text_projection.weight")
        if siglip
        else ("visual.", "text_projection"),
        "transformers": (
            "vision_model.embeddings.position_embedding.weight",
            "text_model.head.weight" if siglip else "text_model.",
        ),
        "big_vision": ("params/img/", "params/txt/", "params/txt/head/kernel"),
    }
    signs = {name: np.zeros((0,), np.float32) for name in names[library]}
    learned = [candidates[0] for candidates in _LEARNED[library].values()]
    shape = (1,) if with_axis else ()
    return signs | {name: np.zeros(shape, np.float32) for name in learned}

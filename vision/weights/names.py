"""Choice of a tower's name map in a library, and of its tensors' prefix in a file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from vision.checkpoint.reading import flatten
from vision.config.schema import locate
from vision.models.bit import BiT
from vision.models.convnext import ConvNeXt
from vision.models.dual import Dual
from vision.models.naflex import NaflexViT
from vision.models.relative_vit import RelativeViT
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.train.tower import Tower
from vision.weights.families import convnext, relative_vit, text, vit
from vision.weights.families.dual import joint_names
from vision.weights.fit import fit_patches, fit_positions
from vision.weights.mapping import MapEntry, Names, Tensor, WeightsError

LIBRARIES = (
    *("timm", "torchvision", "open_clip", "transformers", "big_vision", "efficientnet_pytorch"),
)
Side = Literal["image", "text"]

# Library and class of a tower to the function that gives its names.
_FAMILIES: Mapping[tuple[str, str], str] = {
    ("timm", "BiT"): "bit.timm_bit",
    ("timm", "ConvNeXt"): "convnext.timm_convnext",
    ("timm", "DenseNet"): "densenet.timm_densenet",
    ("timm", "EfficientNet"): "mobilenet.timm_mobilenet",
    ("timm", "EfficientNetLite"): "mobilenet.timm_mobilenet",
    ("timm", "InceptionResNetV2"): "inception.timm_inception_resnet_v2",
    ("timm", "InceptionV4"): "inception.timm_inception_v4",
    ("timm", "MobileNetV1"): "mobilenet.timm_mobilenet",
    ("timm", "MobileNetV2"): "mobilenet.timm_mobilenet",
    ("timm", "MobileNetV3"): "mobilenet.timm_mobilenet",
    ("timm", "MobileNetV4"): "mobilenet_v4.timm_mobilenet_v4",
    ("timm", "MaxVit"): "maxvit.timm_maxvit",
    ("timm", "Mixer"): "mixer.timm_mixer",
    ("timm", "RegNet"): "regnet.timm_regnet",
    ("timm", "ResNet"): "resnet.timm_resnet",
    ("timm", "ResNetV2"): "resnet_v2.timm_resnet_v2",
    ("timm", "Swin"): "swin.timm_swin",
    ("timm", "SwinV2"): "swin_v2.timm_swin_v2",
    ("timm", "VGG"): "vgg.timm_vgg",
    ("timm", "Xcit"): "xcit.timm_xcit",
    ("transformers", "ConvNeXt"): "convnext.transformers_convnext",
    ("transformers", "ResNet"): "resnet.transformers_resnet",
    ("transformers", "SwinV2"): "swin_v2.transformers_swin_v2",
    ("torchvision", "ConvNeXt"): "convnext.torchvision_convnext",
    ("torchvision", "DenseNet"): "densenet.timm_densenet",
    ("torchvision", "ResNet"): "resnet.timm_resnet",
    ("torchvision", "VGG"): "vgg.torchvision_vgg",
    ("efficientnet_pytorch", "EfficientNet"): "efficientnet_pytorch.efficientnet_pytorch",
    ("efficientnet_pytorch", "EfficientNetLite"): "efficientnet_pytorch.efficientnet_pytorch",
}


class _Place(NamedTuple):
    """A possible prefix of a tower's names in a file.

    Attributes:
      prefix: beginning of its names.
      sign: continuation of at least one of them, by which it is recognised.
      library: whose naming follows; empty for the file's.
    """

    prefix: str
    sign: str = ""
    library: str = ""


_IMAGE_TOWERS = (
    *("vision_model.", "vit.", "deit.", "dinov2.", "dinov2_with_registers.", "beit."),
    *("resnet.", "convnext.", "convnextv2.", "swinv2."),
)
# The first that a file has is used; without any, names have no prefix.
_PLACES: Mapping[tuple[str, Side], tuple[_Place, ...]] = {
    # open_clip keeps towers of timm's and transformers' in their naming.
    ("open_clip", "image"): (_Place("visual.trunk.", library="timm"), _Place("visual.")),
    ("open_clip", "text"): (
        _Place("text.transformer.", "embeddings.", "transformers"),
        _Place("text."),
    ),
    ("transformers", "image"): tuple(map(_Place, _IMAGE_TOWERS)),
    ("transformers", "text"): (_Place("text_model."), _Place("bert.")),
    ("big_vision", "image"): tuple(map(_Place, ("opt/target/", "params/img/", "img/", "params/"))),
    ("big_vision", "text"): (_Place("params/txt/"), _Place("txt/")),
}
# Other tensors in files of complete image-text models, beside the tower on one side.
_OTHERS: Mapping[tuple[str, Side], str] = {
    ("open_clip", "image"): r"(text|transformer|token_embedding|ln_final|logit)[._].*"
    r"|positional_embedding|text_projection|visual\.(head\..*|proj)|attn_mask",
    (
        "open_clip",
        "text",
    ): r"(visual|text_decoder)\..*|logit_(scale|bias)"
    r"|(text\.)?(text_projection(\..*)?|proj\..*)",
    ("transformers", "image"): r"(text_model|text_projection|visual_projection)\..*"
    r"|logit_(scale|bias)",
    ("transformers", "text"): r"(vision_model|text_projection|visual_projection)\..*"
    r"|text_model\.head\..*|logit_(scale|bias)",
    ("big_vision", "image"): r"(params/)?(txt/.*|t|b)|opt/(?!target/).*",
    ("big_vision", "text"): r"(params/)?(img/.*|txt/head/.*|t|b)",
}


def names_of(
    library: str, tower: Tower, tensors: Mapping[str, Tensor], learned: Collection[str] = ()
) -> Names:
    """The name map of a tower, or of a complete ``Dual``, in a file of a library.

    Args:
      library: one of ``LIBRARIES``.
      tower: ours. Of a ``Dual`` everything in the file is read; of a file with two towers, an
        image or text tower reads its own.
      tensors: the file, whose names tell where the tower stands and which of the library's namings
        it has.
      learned: learned parameters of a ``Dual``'s loss, ``log_scale`` and ``bias``, whose names are
        ``objective.contrast.log_scale`` and so on.

    Raises:
      WeightsError: the library's naming of this kind of tower is not known.
    """
    if isinstance(tower, Dual):
        if (library, "text") not in _PLACES:
            raise WeightsError(f"{library} has no image-text models; fill a tower of it with into")
        image, texts = (
            _tower_names(library, part, tensors)[0].within(side)
            for side, part in (("image", tower.image), ("text", tower.text))
        )
        return image + texts + joint_names(library, tower, tensors, learned)
    names, prefix = _tower_names(library, tower, tensors)
    side = _side(tower)
    others = {}
    if (library, side) in _OTHERS and (prefix or side == "text"):
        others[_OTHERS[library, side]] = "another part of a model of which this tower is one"
    elif library == "open_clip":
        others["proj"] = "projects to the joint space; see Dual"
    return names + Names((), others)


def _tower_names(library: str, tower: Tower, tensors: Mapping[str, Tensor]) -> tuple[Names, str]:
    """The names of a tower, and what they begin with."""
    place = next(
        (
            place
            for place in _PLACES.get((library, _side(tower)), ())
            if any(name.startswith(place.prefix + place.sign) for name in tensors)
        ),
        _Place(""),
    )
    prefix = place.prefix
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    names = _family(place.library or library, tower, inner)

    def placed(name: str) -> str:
        # A classifier beside the tower it belongs to has no prefix.
        return name if name in tensors and prefix + name not in tensors else prefix + name

    entries = tuple(
        dataclasses.replace(entry, theirs=tuple(map(placed, entry.theirs)))
        for entry in names.entries
    )
    optional = f"(?:{re.escape(prefix)})?"
    ignored = {f"{optional}(?:{pattern})": why for pattern, why in names.ignored.items()}
    return Names(entries, ignored), prefix


def _side(tower: Tower) -> Side:
    return "text" if isinstance(tower, TextTransformer) else "image"


def _family(library: str, tower: Tower, tensors: Mapping[str, Tensor]) -> Names:
    match library, tower:
        case "timm", ViT():
            return vit.timm_vit(tower)
        case "timm", ConvNeXt() if tensors:
            dense = [t for name, t in tensors.items() if name.endswith(".mlp.fc1.weight")]
            return convnext.timm_convnext(tower, any(len(t.shape) == 4 for t in dense))
        case "timm", RelativeViT():
            return relative_vit.timm_relative_vit(tower, tensors)
        case "transformers", RelativeViT():
            return relative_vit.transformers_relative_vit(tower, tensors)
        case "open_clip", ViT():
            return vit.open_clip_vit(tower)
        case "transformers", NaflexViT():
            return vit.transformers_siglip2_vit(tower.as_vit())
        case "transformers", ViT():
            return vit.transformers_names(tower, tensors)
        case "big_vision", ViT():
            return vit.big_vision_vit(tower, tensors)
        case "open_clip", TextTransformer():
            return text.open_clip_text(tower)
        case "transformers", TextTransformer():
            return text.transformers_text(tower, tensors)
        case "big_vision", TextTransformer():
            return text.big_vision_text(tower)
    if isinstance(tower, BiT) and any(name.endswith(".running_mean") for name in tensors):
        raise WeightsError(
            "these weights are of a pre-activation ResNet with BatchNorm, such as timm's "
            "resnetv2_50: ResNetV2 reads them; BiT has GroupNorm and reads timm's resnetv2_*_bit"
        )
    kind = type(tower).__name__
    path = _FAMILIES.get((library, kind))
    if path is None:
        supported = [other for name, other in _FAMILIES if name == library]
        supported += ["ViT"] if library not in ("torchvision", "efficientnet_pytorch") else []
        supported += ["RelativeViT"] if library in ("timm", "transformers") else []
        supported += ["NaflexViT"] if library == "transformers" else []
        supported += ["TextTransformer"] if (library, "text") in _PLACES else []
        raise WeightsError(
            f"{library} has no name map for a {kind}; it has for {', '.join(sorted(supported))}"
        )
    return locate(f"vision.weights.families.{path}")(tower)


def own_names(tower: Tower, target: Any, prefix: Mapping[str, str]) -> Names:
    """Our own names, of a file or a run, in which trees may go deeper.

    Args:
      tower: ours; positions and patches of a ViT may have another size.
      target: ``{"params": tree, "model_state": tree}``, perhaps with ``objective``.
      prefix: ``params`` and so on to what they are called there.
    """
    image, place = (tower.image, "params.image") if isinstance(tower, Dual) else (tower, "params")
    fits = {f"{place}.pos_embed": fit_positions, f"{place}.patch_embed.kernel": fit_patches}
    fits = fits if isinstance(image, (ViT, RelativeViT)) else {}
    entries = []
    for ours in flatten(target):
        root, _, below = ours.partition(".")
        entries.append(MapEntry(ours, (f"{prefix[root]}.{below}",), fit=fits.get(ours)))
    return Names(tuple(entries))

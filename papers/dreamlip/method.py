"""DreamLIP: contrastive learning from sentences of long captions, and zero-shot segmentation.

Zheng et al., DreamLIP: Language-Image Pre-training with Long Captions, 2024. Headline: with 30
million pairs on a par with, or above, CLIP with 400 million in retrieval and segmentation.

Of an image with a caption t_1 and sentences t_2 .. t_K drawn from longer ones, all unit vectors,
x the image and v_p its patches,

    L = 1/K sum_k InfoNCE(x, t_k)  +  InfoNCE over all B K pairs (u_k, t_k)
    u_k = normalise(sum_p w_kp v_p),   w_k = t_k . v, stretched to 0..1, cut below 0.1, divided by
                                       its sum

The training is in the library: ``ops.SubCaptions`` draws the sentences,
``Contrast(grouping=Grouping())`` of ``vision.objectives.contrast`` is the loss, with ``Grouping``
of ``vision.blocks.grouping`` for the second term. ``papers.dreamlip.evaluator`` has what the second
term enables, segmentation without a head: with the unit text embedding c_k of class k, a patch gets
the class argmax_k v_p . c_k, and a pixel that of its patch. ``Painted`` makes its true classes.

Not here: the paper's circle and transport losses, which its code disables, and its captioners.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.data.ops.base import Example
from vision.data.sources.scenes import ATTRIBUTES
from vision.data.sources.scenes.vocabulary import BACKGROUNDS, COLOURS


@dataclasses.dataclass(frozen=True)
class Painted:
    """The class of every pixel of a scene: the kind of background, or the colour of the object.

    Replaces ``instances``, ``attributes`` and ``background`` of a ``Scenes`` source by
    ``segmentation``, int32 (H, W): first come the backgrounds, then the colours.

    Attributes:
      backgrounds, colours: in label order; pixels of any other are -1.
    """

    backgrounds: tuple[str, ...] = BACKGROUNDS
    colours: tuple[str, ...] = COLOURS

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        reads = ("instances", "attributes", "background")
        if missing := [name for name in reads if name not in example]:
            raise ValueError(f"Painted: no feature {missing[0]!r}; put it into Scenes.features")
        background, first_colour = BACKGROUNDS[int(example["background"])], len(self.backgrounds)
        classes = [_class_of(self.backgrounds, background, 0)]
        for colour in example["attributes"][:, ATTRIBUTES.index("colour")].tolist():
            classes.append(
                -1 if colour < 0 else _class_of(self.colours, COLOURS[colour], first_colour)
            )
        others = {name: value for name, value in example.items() if name not in reads}
        return others | {"segmentation": np.asarray(classes, np.int32)[example["instances"]]}


def _class_of(names: tuple[str, ...], name: str, first: int) -> int:
    return first + names.index(name) if name in names else -1

"""Token reduction to a tenth with a cross-layer cache and a multi-depth head (CLCA).

    python train.py --config=papers/clca/config.py:images --workdir=workdirs/clca

Rios et al., Cross-Layer Cache Aggregation for Token Reduction in Ultra-Fine-Grained Image
Recognition, 2024: ViT-B/16 at 448 pixels, EViT's reduction to r = 0.1 in the 4th, 7th and 10th
block, on a tower from ImageNet-21k. ``images`` has the folders ``train`` and ``val``, with one
folder per class; the paper's leaves are not here. Its learning rate is 1e-4; 50 epochs and batches
of 8 are ours.

``small`` reads tiny marks in scenes of 24 pixels, 36 patches. ``small,rival=evit`` reduces alike
without cache and head, the rivals ``topk``, ``tome`` and ``patchmerger`` by other rules, ``full``
not at all.
"""

from typing import Literal

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from configs.parts.small_pairs import scenes
from papers.clca.method import CLCA
from papers.clca.token_reduction import Attended, Gathered, Merged
from vision import ops, spec

WORLD = {
    "label": "glyph",
    "num_objects": (1, 1),
    "glyph_size": 0.25,
    "colours": ("white",),
    "backgrounds": ("paper",),
}
RULES = {
    "evit": spec(Attended),
    "topk": spec(Attended, fuse=False),
    "tome": spec(Merged),
    "patchmerger": spec(Gathered),
}


def get_config(folder: str = "images") -> v.Config:
    normalise = [spec(ops.ValueRange, low=-1, high=1)]
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Folder, root=folder, part="train"),
            batch_size=8,
            ops=[
                spec(ops.Decode),
                spec(ops.Resize, size=(600, 600)),
                spec(ops.RandomCrop, size=448),
                spec(ops.RandomFlip),
                *normalise,
            ],
        ),
        model=spec(
            v.ViT, variant="B/16", registers=1, precision=spec(v.Precision, compute="bfloat16")
        ),
        init_from=spec(
            v.InitFrom,
            source="timm:vit_base_patch16_224.augreg_in21k",
            head="new",
            kept=[r"registers"],
        ),
        objective=spec(CLCA),
        optimizer=adamw_cosine(1e-4, "5 epochs"),
        total="50 epochs",
        evaluators={
            "val": spec(
                v.Classification,
                data=spec(
                    v.EvalData,
                    source=spec(v.Folder, root=folder, part="val"),
                    batch_size=32,
                    ops=[
                        spec(ops.Decode),
                        spec(ops.Resize, size=(600, 600)),
                        spec(ops.CenterCrop, size=448),
                        *normalise,
                    ],
                ),
            )
        },
    )


def small(
    rival: Literal["", "evit", "topk", "tome", "patchmerger", "full"] = "",
) -> v.Config:
    objective = spec(CLCA, blocks=(1,))
    if rival:
        reduced = {"keep": 1.0} if rival == "full" else {"rule": RULES[rival]}
        objective = spec(CLCA, blocks=(1,), cache=False, aggregate=False, **reduced)
    test = scenes("test", 800, ("image", "label"), **WORLD)
    return spec(
        v.Experiment,
        data=train_data(scenes("train", 2400, ("image", "label"), **WORLD), 32),
        model=spec(v.ViT, width=32, depth=3, heads=4, patch=4, pool="cls", registers=1),
        objective=objective,
        optimizer=adamw_cosine(3e-3),
        total="200 steps",
        evaluators={"test": spec(v.Classification, data=eval_data(test, 400))},
        log_every="50 steps",
    )

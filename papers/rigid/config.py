"""RIGID as its authors run it: DINOv2's ViT-L/14, images of 224 pixels, lambda 0.05.

    python evaluate.py --config=papers/rigid/config.py:FOLDER --workdir=workdirs/rigid
    python train.py --config=papers/rigid/config.py:small --workdir=workdirs/rigid_small

He et al., RIGID, 2024. FOLDER has ``calibration`` and ``real`` and a folder for every one of
``generators``, each with folders of images. Nothing is trained.

``small`` names the shapes in scenes of 32 pixels for 200 steps; generated are scenes with what two
kinds of generators leave behind: a checkerboard, and an image that was resampled.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.rigid.method import NoiseSensitivity
from vision import ops, spec

STD = (0.229, 0.224, 0.225)


def get_config(
    folder: str = "images", generators: tuple[str, ...] = ("ADM", "BigGAN", "StyleGAN")
) -> v.Config:
    values = [
        spec(ops.Decode),
        spec(ops.Resize, size=256),
        spec(ops.CenterCrop, size=224),
        spec(ops.ValueRange),
        spec(ops.Normalize, mean=(0.485, 0.456, 0.406), std=STD),
    ]

    def read(name):
        return spec(
            v.EvalData, source=spec(v.Folder, root=f"{folder}/{name}"), batch_size=32, ops=values
        )

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Folder, root=f"{folder}/calibration"),
            batch_size=32,
            ops=values,
        ),
        model=spec(v.ViT, variant="L/14", class_position=True, layer_scale=1.0),
        init_from=spec(v.InitFrom, source="timm:vit_large_patch14_dinov2.lvd142m", head="new"),
        objective=spec(v.Classify),
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=0.0),
        total="1 steps",
        evaluators={
            "rigid": spec(
                NoiseSensitivity,
                calibration=read("calibration"),
                real=read("real"),
                generated={name: read(name) for name in generators},
                scales=(0.01, 0.05, 0.1),
                std=STD,
            )
        },
    )


def scenes(split, examples, **more):
    given = {"image_size": 32, "num_objects": (1, 1), "label": "shape", **more}
    return spec(v.Scenes, split=split, num_examples=examples, **given)


def small() -> v.Config:
    def read(split, **more):
        return eval_data(scenes(split, 300, **more), 100, threads=0)

    return spec(
        v.Experiment,
        data=train_data(scenes("train", 4000), 64),
        model=spec(v.PlainConv, width=16, depth=3),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="200 steps",
        evaluators={
            "rigid": spec(
                NoiseSensitivity,
                calibration=read("val"),
                real=read("test"),
                generated={
                    kind: read("test", artefacts=(kind,), artefact_rate=1.0)
                    for kind in ("checkerboard", "resample")
                },
                scales=(0.02, 0.05, 0.2),
                std=(0.5,),
            )
        },
        log_every="50 steps",
    )

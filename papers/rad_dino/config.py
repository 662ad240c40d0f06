"""Continued DINOv2 pretraining on chest X-rays (RAD-DINO).

    python train.py --config=papers/rad_dino/config.py:films --workdir=workdirs/rad_dino

Perez-Garcia et al., RAD-DINO, 2025: ViT-B/14 from DINOv2, crops of 518 px, batches of 640, 100
epochs. ``films`` is a folder of images, any folders in it, with a shorter side of 518 px or more:
MIMIC-CXR, CheXpert, NIH-CXR, PadChest and BRAX ask for credentials. The learning rate is
unconfirmed, stochastic depth that of DINOv2; weight decay stays where DINOv2's begins.

``small`` learns 24 px scenes in colour first, then goes on with grey films of such scenes, with
hidden patches and, from the same start, without them; its crops are made on the device, and
change nothing but place and size.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from configs.parts.small_pairs import scenes
from papers.rad_dino.method import Film, Findings, film_views
from vision import batch_ops, batch_views, ops, spec
from vision.data.sources.scenes.vocabulary import SHAPES

KINDS = ("circle", "square", "star", "cross")
CROPS = ("image/global", "image/local")
# Of the films, as the released model's own preprocessing has them.
MEAN, STD = (0.5307, 0.5307, 0.5307), (0.2583, 0.2583, 0.2583)


def get_config(folder: str = "films") -> v.Config:
    values = [spec(batch_ops.BatchValueRange, image_key=key) for key in CROPS]
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Folder, root=folder),
            batch_size=640,
            ops=[
                spec(ops.Decode),
                spec(ops.ToRgb),
                spec(ops.Resize, size=518),
                spec(ops.CenterCrop, size=518),
                spec(film_views),
                spec(ops.BlockPatchMasks, grid=(37, 37)),
            ],
            batch_ops=[
                *values,
                *(
                    spec(batch_views.BatchNormalize, mean=MEAN, std=STD, image_key=key)
                    for key in CROPS
                ),
            ],
            on_error="mask",
            threads=16,
            prefetch_batches=16,
        ),
        model=spec(
            v.ViT,
            variant="B/14",
            num_classes=0,
            class_position=True,
            layer_scale=1.0,
            drop_path=0.3,
            remat="dots",
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        init_from=spec(v.InitFrom, source="timm:timm/vit_base_patch14_dinov2.lvd142m"),
        objective=spec(v.SelfDistill),
        optimizer=adamw_cosine(1e-3, "10 epochs", weight_decay=0.04, clip_norm=3.0),
        total="100 epochs",
    )


def small() -> v.Config:
    world = {"shapes": KINDS, "sizes": ("medium", "large"), "num_objects": (1, 3)}
    film, start = spec(Film), spec(v.InitFrom, source="workdir:stage:pictures")
    common = {"widths": (64, 32), "prototypes": 128, "momentum": 0.98}

    def crops(size, scale, out):
        return spec(
            batch_views.Crops,
            crop=spec(batch_views.BatchRandomResizedCrop, size=size, scale=scale),
            out=out,
        )

    def learn(prepared, objective, **more):
        return spec(
            v.Experiment,
            data=train_data(
                scenes("train", 2000, ("image",), **world),
                32,
                crops(24, (0.5, 1.0), "image/global"),
                crops(12, (0.2, 0.5), "image/local"),
                ops=[*prepared, spec(ops.BlockPatchMasks, grid=(6, 6), least=2)],
            ),
            model=spec(v.ViT, width=32, depth=2, heads=4, patch=4, num_classes=0),
            objective=objective,
            optimizer=adamw_cosine(2e-3, weight_decay=0.04, clip_norm=3.0),
            total="200 steps",
            evaluators=heads(world, film),
            log_every="50 steps",
            **more,
        )

    with_patches = spec(v.SelfDistill, **common)
    without = spec(v.SelfDistill, patch_weight=0.0, **common)
    return spec(
        v.Scenario,
        stages=[
            spec(v.Stage, name="pictures", do=learn([], with_patches)),
            spec(v.Stage, name="films", do=learn([film], with_patches, init_from=start)),
            spec(v.Stage, name="views_only", do=learn([film], without, init_from=start)),
        ],
    )


def heads(world, film):
    """Findings and what patches show, of films."""

    def read(split, examples):
        return eval_data(
            scenes(split, examples, ("image", "segmentation"), **world),
            250,
            film,
            spec(Findings, codes=[1 + SHAPES.index(kind) for kind in KINDS]),
        )

    both = {"train": read("val", 1000), "test": read("test", 1000)}
    return {
        "findings": spec(v.FindingsProbe, **both),
        "patches": spec(v.PatchProbe, classes=1 + len(KINDS), **both),
    }

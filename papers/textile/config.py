"""TexTile: ConvNeXt-B on textures laid 2 x 2, from ImageNet's weights.

    python train.py --config=papers/textile/config.py:data/textures --workdir=workdirs/textile
    python train.py --config=textile:small --workdir=workdirs/textile_small

Rodriguez-Pardo et al., TexTile: A Differentiable Metric for Texture Tileability, 2024. The folder
has `train` and `test`, each with `not_tileable` and `tileable`; half of the tileable ones are cut
and then are not. Laid textures are resized to the paper's 512 pixels. The recipe is
not public: AdamW at 1e-4 for 100 epochs of 32 and the augmentations beside the cut are ours.

`small`: wallpapers of emoji, 24 pixels; `small,tiles=1` shows the network the wallpaper alone.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.textile.method import Cut, Rolled, TellTiles, Tileability
from papers.textile.tower import AttentiveConvNeXt, Laid
from papers.textile.wallpaper import wallpapers
from vision import ops, spec


def get_config(folder: str = "data/textures") -> v.Config:
    decode = [spec(ops.Decode), spec(ops.ToRgb)]
    normalise = [
        spec(ops.Resize, size=(256, 256)),
        spec(ops.ValueRange),
        spec(ops.Normalize),
    ]

    def read(split):
        return spec(v.Folder, root=f"{folder}/{split}")

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=read("train"),
            batch_size=32,
            ops=[*decode, spec(Rolled), spec(Cut), spec(ops.RandomFlip), *normalise],
            threads=16,
        ),
        model=spec(
            Laid,
            tower=spec(
                AttentiveConvNeXt,
                variant="base",
                num_classes=1,
                drop_path=0.1,
                precision=spec(v.Precision, compute="bfloat16"),
            ),
            size=512,
        ),
        init_from=spec(
            v.InitFrom,
            source="timm:convnext_base.fb_in1k",
            into="tower",
            kept=(r"stage\d_attention",),
            head="new",
            compare=False,
        ),
        objective=spec(TellTiles),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=1e-4,
            schedule=spec(v.Cosine, warmup="1 epoch"),
            weight_decay=0.05,
        ),
        total="100 epochs",
        evaluators={
            "textures": spec(
                Tileability,
                data=spec(
                    v.EvalData, source=read("test"), batch_size=32, ops=[*decode, *normalise]
                ),
            )
        },
        evaluate_every="5 epochs",
    )


def small(tiles: int = 2) -> v.Config:
    return spec(
        v.Experiment,
        data=train_data(spec(wallpapers, split="train", num_examples=2000), 32),
        model=spec(Laid, tower=spec(v.PlainConv, width=12, depth=3, num_classes=1), tiles=tiles),
        objective=spec(TellTiles),
        optimizer=adamw_cosine(5e-3),
        total="200 steps",
        evaluators={
            "new_house": spec(
                Tileability,
                data=eval_data(spec(wallpapers, split="test", num_examples=600), 200),
            )
        },
        log_every="50 steps",
    )

"""A captioner that detects objects: supervised fine-tuning, then verifiable rewards (Visual-RFT).

    python train.py --config=papers/visual_rft/config.py --workdir=workdirs/rft

Liu et al., Visual-RFT, 2025, fine-tune Qwen2-VL-2B on a few images of COCO, which is not here: the
policy is a captioner of this repository on scenes of up to three objects, 8 answers per image.

``small`` has one object in scenes of 24 pixels: a stage of supervised fine-tuning that stays weak,
then on 16 scenes either rewards or more of the same, each for 150 steps.
"""

import vision as v
from configs.parts.small import train_data
from papers.visual_rft.box_answers import BoxAnswers
from papers.visual_rft.evaluator import AnswerRewards
from papers.visual_rft.method import VisualRft
from vision import ops, spec

SHAPES = ("circle", "square", "triangle", "star")


def get_config() -> v.Config:
    return scenario(
        scenes={"image_size": 64, "num_objects": (1, 3)},
        language=spec(BoxAnswers, classes=len(SHAPES), bins=32, max_boxes=3),
        image={"width": 192, "depth": 6, "heads": 3, "patch": 8},
        text={"width": 192, "depth": 4, "heads": 3},
        sft=("5_000 steps", 128, 20_000, 3e-4),
        rft=("2_000 steps", 16, 500, 1e-5),
    )


def small() -> v.Config:
    return scenario(
        scenes={"image_size": 24, "num_objects": (1, 1)},
        language=spec(BoxAnswers, classes=len(SHAPES), bins=13),
        image={"width": 32, "depth": 2, "heads": 2, "patch": 6},
        text={"width": 32, "depth": 2, "heads": 2},
        sft=("200 steps", 64, 1024, 2e-3),
        rft=("150 steps", 8, 16, 3e-4),
    )


def scenario(*, scenes, language, image, text, sft, rft):
    model = spec(
        v.Captioner,
        image=spec(v.ViT, pool="mean", **image),
        vocab_size=7 + len(SHAPES) + language.bins + language.confidences,
        context=7 + 5 * language.max_boxes,
        **text,
    )

    def source(split, count):
        return spec(
            v.Scenes,
            split=split,
            num_examples=count,
            shapes=SHAPES,
            features=("image", "label", "boxes", "valid"),
            **scenes,
        )

    def read(source):
        values = [language, spec(ops.ValueRange, low=-1, high=1)]
        data = spec(v.EvalData, source=source, batch_size=128, ops=values, threads=0)
        return spec(AnswerRewards, data=data, language=language)

    def run(objective, source, recipe, **begin):
        total, batch_size, _, learning_rate = recipe
        return spec(
            v.Experiment,
            data=train_data(source, batch_size, ops=[language], threads=0),
            model=model,
            objective=objective,
            optimizer=spec(
                v.Optimizer,
                method=spec(v.adamw, b2=0.99),
                learning_rate=learning_rate,
                clip_norm=1.0,
            ),
            total=total,
            evaluators={"test": read(source_of_tests), "few": read(few)},
            log_every="25 steps",
            **begin,
        )

    few = source("few", rft[2])
    source_of_tests = source("test", 256)
    begin = {"init_from": spec(v.InitFrom, source="workdir:stage:sft")}
    stages = {
        "sft": run(spec(v.Caption), source("train", sft[2]), sft),
        "rft": run(spec(VisualRft, language=language), few, rft, **begin),
        "more_sft": run(spec(v.Caption), few, rft, **begin),
    }
    return spec(v.Scenario, stages=[spec(v.Stage, name=name, do=do) for name, do in stages.items()])

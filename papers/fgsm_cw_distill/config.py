"""Defensive distillation under FGSM and Carlini-Wagner: ResNet-101 teaches ResNeXt-50 on CIFAR-10.

    python train.py --config=papers/fgsm_cw_distill/config.py:distil=false \\
        --workdir=workdirs/distill/teacher
    python train.py --config=papers/fgsm_cw_distill/config.py --workdir=workdirs/distill/s
    python evaluate.py --workdir=workdirs/distill/s --features=workdirs/features

Evaluating Adversarial Robustness, 2024; the teacher is the first run of two. Attacked are 1,000
pictures of the test set, by FGSM of several radii, by FGSM through the logits over the temperature,
and by Carlini-Wagner. The recipe of training is ours: the paper has none.

`small` is a narrow ConvNeXt on 8x8 digits, at T = 50, distilled from a copy trained by
`small,distil=false` in workdirs/distill/small_teacher; a minute each.
"""

import vision as v
from papers.fgsm_cw_distill.method import DefensiveDistillation
from papers.fgsm_cw_distill.teacher import TeacherFrom
from vision import batch_ops, ops, spec
from vision.blocks.attack_rules import CarliniWagner, fgsm

FROZEN = [spec(v.ParameterRule, pattern="^teacher/", learning_rate=0)]
EPSILONS = (0.01, 0.03, 0.1, 0.2, 0.3)


def evaluators(source, before, attacked, **cw):
    """Accuracy, attacks on what is deployed, and FGSM through the logits over the temperature."""
    data = spec(v.EvalData, source=source, batch_size=125, ops=before)
    towards = {"data": data, "mean": (0.5,), "std": (0.5,), "examples": attacked}
    deployed = {"fgsm": spec(fgsm, eps=0.15), "cw": spec(CarliniWagner, **cw)}
    return {
        "test": spec(v.Classification, data=data),
        "attacked": spec(v.Adversarial, attacks=deployed, epsilons=EPSILONS, **towards),
        "tempered": spec(
            v.Adversarial,
            attacks={"fgsm": spec(fgsm, eps=0.15)},
            epsilons=EPSILONS,
            logits="tempered_logits",
            **towards,
        ),
    }


def get_config(distil: bool = True) -> v.Config:
    wide = {"stem": "cifar", "head_zero_init": False}
    teacher = spec(v.ResNet, depth=101, **wide)
    student = spec(v.ResNet, depth=50, groups=32, group_width=4, **wide)
    values = [spec(ops.ValueRange, low=-1, high=1)]
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Tfds, name="cifar10", split="train"),
            batch_size=256,
            ops=[spec(ops.Decode), spec(ops.RandomCrop, size=32, padding=4)],
            batch_ops=[
                spec(batch_ops.BatchRandomFlip),
                spec(batch_ops.BatchValueRange, low=-1, high=1),
            ],
        ),
        model=student if distil else teacher,
        init_from=spec(TeacherFrom, source="workdir:workdirs/distill/teacher", teacher=teacher)
        if distil
        else None,
        objective=spec(
            DefensiveDistillation,
            temperature=20.0,
            distil=distil,
            teacher=teacher if distil else None,
        ),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, nesterov=True),
            # The gradient at temperature T is about 1 / T of that at 1.
            learning_rate=0.1,
            schedule=spec(v.Cosine, warmup="5 epochs"),
            weight_decay=5e-4,
            decay="coupled",
            rules=[*(FROZEN if distil else ()), *v.DECAY_KERNELS],
        ),
        total="200 epochs",
        evaluators=evaluators(
            spec(v.Tfds, name="cifar10", split="test"),
            [spec(ops.Decode), spec(ops.CenterCrop, size=32), *values],
            attacked=1000,
        ),
    )


def small(distil: bool = True) -> v.Config:
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Digits, split="train"),
            batch_size=64,
            batch_ops=[
                spec(batch_ops.BatchValueRange, low=-1, high=1),
                spec(batch_ops.BatchRandomCrop, padding=1, fill="edge"),
            ],
            threads=0,
        ),
        model=spec(
            v.ConvNeXt,
            depths=(1, 1),
            dims=(16, 32),
            stem_stride=2,
            layer_scale=None,
            head_zero_init=False,
        ),
        init_from=spec(TeacherFrom, source="workdir:workdirs/distill/small_teacher")
        if distil
        else None,
        objective=spec(DefensiveDistillation, temperature=50.0, distil=distil),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=2e-2,
            schedule=spec(v.Cosine, warmup="1 epochs"),
            rules=[*(FROZEN if distil else ()), *v.DECAY_KERNELS],
        ),
        total="30 epochs",
        evaluators=evaluators(
            spec(v.Digits, split="test"),
            [spec(ops.ValueRange, low=-1, high=1)],
            attacked=125,
            steps=100,
            searches=5,
            first_c=1.0,
        ),
        log_every="20 steps",
    )

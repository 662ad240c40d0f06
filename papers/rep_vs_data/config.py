"""Where perturbations transfer: pixels and blocks of ResNet-18s of other seeds on CIFAR-10.

    python train.py --config=papers/rep_vs_data/config.py:SEED --workdir=workdirs/transfer/SEED
    python train.py --config=papers/rep_vs_data/config.py:small,seed=1 \\
        --workdir=workdirs/transfer/small_1
    python train.py --config=papers/rep_vs_data/config.py:small --workdir=workdirs/transfer/small

Why Representation-Space Attacks Fail to Transfer. The run of seed 0 is compared with those of seeds
1 and 2, which are trained before it. The recipe of training is ours.

``small`` is a CNN on digits of 8 pixels, beside one run of seed 1; under a minute each.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.rep_vs_data.evaluator import Transfer
from papers.rep_vs_data.universal import Universal
from vision import batch_ops, ops, spec


def transfer(learned, data, others, sites, eps):
    return spec(
        Transfer,
        learned=learned,
        data=data,
        others=others,
        targets=tuple(range(10)),
        pixels=spec(Universal, eps=eps),
        activations=spec(Universal, eps=0.6, norm="l2", pixels=False),
        sites=sites,
        mean=(0.5,),
        std=(0.5,),
    )


def get_config(seed: int = 0) -> v.Config:
    central = [spec(ops.Decode), spec(ops.CenterCrop, size=32)]

    def read(split):
        return eval_data(spec(v.Tfds, name="cifar10", split=split), 250, *central)

    evaluators = {"test": spec(v.Classification, data=read("test"))}
    if seed == 0:
        others = {str(k): f"workdirs/transfer/{k}" for k in (1, 2)}
        sites = tuple(f"block{number:02d}" for number in (1, 3, 5, 7))
        evaluators["transfer"] = transfer(
            read("train[:1000]"), read("test[:2000]"), others, sites, eps=16 / 255
        )
    return spec(
        v.Experiment,
        seed=seed,
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
        model=spec(v.ResNet, depth=18, stem="cifar", head_zero_init=False),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, nesterov=True),
            learning_rate=0.1,
            schedule=spec(v.Cosine, warmup="5 epochs"),
            weight_decay=5e-4,
            decay="coupled",
            rules=v.DECAY_KERNELS,
        ),
        total="100 epochs",
        evaluators=evaluators,
    )


def small(seed: int = 0) -> v.Config:
    def read(split):
        return eval_data(spec(v.Digits, split=split), 100, threads=0)

    evaluators = {"test": spec(v.Classification, data=read("test"))}
    if seed == 0:
        others = {"1": "workdirs/transfer/small_1"}
        evaluators["transfer"] = transfer(
            read("train"), read("test"), others, ("block00", "block01"), eps=0.4
        )
    return spec(
        v.Experiment,
        seed=seed,
        data=train_data(spec(v.Digits, split="train"), 64),
        model=spec(v.PlainConv, width=16, depth=2),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="400 steps",
        evaluators=evaluators,
        log_every="100 steps",
    )

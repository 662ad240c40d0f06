"""Data-free adaptation of an image classifier to guide a diffusion model (PPAP).

    python train.py --config=papers/ppap/config.py --workdir=workdirs/ppap

Go et al., Towards Practical Plug-and-Play Diffusion Models, 2023: ImageNet at 256 pixels, 500,000
images without a class for five experts. ``diffusion`` is the workdir of the diffusion model, by
default that of ``diffusion_cls.py``; the classifier is a ResNet-50 that takes images of -1..1 and
is trained here, where the authors take one off the shelf. FID and IS are not computed.

``small`` is the digits that ship, from the diffusion model to images led by five experts, by one,
and by the classifier as it is, judged by a wider network that led nothing.
"""

import vision as v
from configs.parts import digit_diffusion, imagenet
from configs.parts.small import train_data
from papers.ppap.method import CONVOLUTIONS, NoiseExperts
from papers.ppap.sampled import Sampled
from vision import batch_ops, ops, spec

SCALE = 7.5


def get_config(diffusion: str = "workdirs/adm") -> v.Config:
    values = [spec(ops.ValueRange, low=-1, high=1)]
    net = spec(v.ResNet, depth=50, num_classes=1000)
    noise = spec(v.Diffusion, steps=1000)
    classifier = spec(
        v.Experiment,
        data=imagenet.train(1024, values, size=256),
        model=net,
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=0.4,
            schedule=spec(v.Cosine, warmup="5 epochs"),
            weight_decay=1e-4,
            decay="coupled",
        ),
        total="90 epochs",
        evaluators=imagenet.evaluation(1024, values, size=256, resize=292),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )
    made = {"run_of": diffusion, "diffusion": noise}
    # Every expert takes 300,000 / 5 steps of 256 images.
    learned = experts(5, net, noise, spec(v.Lora, **vars(CONVOLUTIONS)), 1280, "60_000 steps", 1e-4)
    return spec(
        v.Scenario,
        stages=[
            stage("classifier", classifier),
            stage("images", spec(Sampled, count=500_000, **made)),
            stage("experts", learned),
            stage(
                "guided", spec(Sampled, count=10_000, guide="stage:experts", scale=SCALE, **made)
            ),
        ],
    )


def small() -> v.Config:
    net = spec(v.PlainConv, width=32, depth=2, num_classes=10)
    noise, lora = digit_diffusion.diffusion(), spec(v.Lora, pattern="conv[^/]*/kernel$", rank=8)
    made = {"run_of": "stage:diffusion", "diffusion": noise}

    def guided(by):
        return spec(
            Sampled, count=200, guide=f"stage:{by}", scale=SCALE, judge="stage:judge", **made
        )

    def learned(count):
        return experts(count, net, noise, lora, 160, "400 steps", 4e-3)

    judge = spec(v.PlainConv, width=48, depth=2, num_classes=10)
    return spec(
        v.Scenario,
        stages=[
            stage("diffusion", digit_diffusion.denoise()),
            stage("classifier", classified(net, "300 steps")),
            stage("judge", classified(judge, "300 steps")),
            stage("images", spec(Sampled, count=1024, **made)),
            stage("experts", learned(5)),
            stage("single", learned(1)),
            stage("guided", guided("experts")),
            stage("guided_single", guided("single")),
            stage("guided_clean", guided("classifier")),
        ],
    )


def stage(name, do):
    return spec(v.Stage, name=name, do=do)


def classified(model, total):
    """A classifier of the digits that ship."""
    return spec(
        v.Experiment,
        data=digit_diffusion.train(64, spec(batch_ops.BatchRandomCrop, padding=1, fill="edge")),
        model=model,
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=4e-3,
            schedule=spec(v.Cosine),
            clip_norm=1.0,
        ),
        total=total,
        evaluators={"test": spec(v.Classification, data=digit_diffusion.digits("test"))},
        log_every="50 steps",
    )


def experts(count, net, noise, lora, batch_size, total, learning_rate):
    return spec(
        v.Experiment,
        data=train_data(spec(v.Npz, path="stage:images/images.npz"), batch_size, threads=0),
        model=net,
        init_from=spec(v.InitFrom, source="workdir:stage:classifier", head="read"),
        objective=spec(NoiseExperts, diffusion=noise, experts=count, adapters=[lora]),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=learning_rate,
            schedule=spec(v.LinearDecay),
            weight_decay=0.05,
            rules=[
                spec(v.ParameterRule, pattern="experts/"),
                spec(v.ParameterRule, pattern=".*", learning_rate=0.0),
            ],
        ),
        total=total,
        log_every="50 steps",
    )

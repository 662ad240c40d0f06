"""Contrastive batches with one image of each cluster (G-SimCLR).

    python train.py --config=papers/g_simclr/config.py --workdir=workdirs/g_simclr
    python evaluate.py --workdir=workdirs/g_simclr/contrast

Chakraborty et al., G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo
Labelling, 2020: CIFAR-10 with batches of 64. An 18-layer ResNet for small images stands for the
paper's 20-layer one, and one cosine for its restarts. ``small`` takes the digits that ship, with
batches of 16; ``guided=false`` of both is SimCLR: the same without clusters.
"""

import vision as v
from papers.g_simclr.method import OnePerCluster
from vision import batch_ops, ops, spec
from vision.scenario.features import Clusters

PROBED = {  # the paper's P1, P2 and P3: from behind the projection to before it
    "p1": "projector/block01",
    "p2": "projector/block00",
    "p3": "embedding",
}


def get_config(guided: bool = True) -> v.Config:
    autoencoder = spec(v.ConvAutoencoder, widths=(32, 64, 128))
    return stages(
        train=spec(v.Tfds, name="cifar10", split="train"),
        test=spec(v.Tfds, name="cifar10", split="test"),
        batch_size=64,
        guided=guided,
        autoencoder=run(autoencoder, "20 epochs", learning_rate=1e-3),
        model=spec(v.ResNet, depth=18, stem="cifar", num_classes=0),
        views=spec(ops.simclr_views, size=32, strength=0.5, blur=False),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=0.1,
            schedule=spec(v.Cosine),
        ),
        total="15 epochs",
    )


def small(guided: bool = True) -> v.Config:
    one_view = [
        spec(ops.RandomResizedCrop, size=8, scale=(0.5, 1.0)),
        spec(ops.ColorJitter, brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0),
    ]
    return stages(
        train=spec(v.Digits, split="train"),
        test=spec(v.Digits, split="test"),
        batch_size=16,
        guided=guided,
        autoencoder=run(spec(v.ConvAutoencoder, widths=(8, 16)), "10 epochs", learning_rate=3e-3),
        model=spec(v.PlainConv, width=16, depth=2, num_classes=0),
        views=spec(ops.Views, pipelines=[one_view, one_view]),
        optimizer=spec(
            v.Optimizer, method=spec(v.adamw), learning_rate=2e-3, schedule=spec(v.Cosine)
        ),
        total="4 epochs",
    )


def run(model, total, learning_rate):
    """Of the denoising autoencoder, whose data ``stages`` fills in."""
    optimizer = spec(v.Optimizer, method=spec(v.adamw), learning_rate=learning_rate)
    return {
        "model": model,
        "objective": spec(v.Reconstruct, noise=0.01),
        "optimizer": optimizer,
        "total": total,
    }


def stages(train, test, batch_size, guided, autoencoder, model, views, optimizer, total):
    values = spec(batch_ops.BatchValueRange, low=0, high=1)
    read = {"batch_size": 500, "ops": [spec(ops.ValueRange, low=0, high=1)]}

    def data(source, **more):
        return spec(v.TrainData, source=source, batch_size=batch_size, batch_ops=[values], **more)

    file = "stage:clusters/clusters.npy"
    clustered = data(
        spec(v.Computed, source=train, file=file, feature="cluster"),
        ops=[views],
        sampler=spec(OnePerCluster, clusters=batch_size),
    )
    contrast = spec(
        v.Experiment,
        data=clustered if guided else data(train, ops=[views]),
        model=model,
        objective=spec(v.TwoViews, projection=(256, 128, 50), temperature=0.1),
        optimizer=optimizer,
        total=total,
        evaluators={
            name: spec(
                v.LinearProbe,
                train=spec(v.EvalData, source=train, **read),
                test=spec(v.EvalData, source=test, **read),
                output=output,
            )
            for name, output in PROBED.items()
        },
    )
    if not guided:
        return spec(v.Scenario, stages=[spec(v.Stage, name="contrast", do=contrast)])
    clusters = spec(
        Clusters,
        run_of="stage:autoencoder",
        data=spec(v.EvalData, source=train, **read),
        clusters=batch_size,
    )
    learned = spec(v.Experiment, data=data(train, threads=0), **autoencoder)
    return spec(
        v.Scenario,
        stages=[
            spec(v.Stage, name="autoencoder", do=learned),
            spec(v.Stage, name="clusters", do=clusters),
            spec(v.Stage, name="contrast", do=contrast),
        ],
    )

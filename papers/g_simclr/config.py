"""Contrastive batches with one image of each cluster (G-SimCLR).

    python train.py --config=papers/g_simclr/config.py --workdir=workdirs/g_simclr
    python evaluate.py --workdir=workdirs/g_simclr/contrast

Chakraborty et al., G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo
Labelling, 2020: CIFAR-10 with batches of 64. An 18-layer ResNet for small images stands for the
paper's 20-layer one, and one cosine for its restarts. ``small`` takes the digits that ship, with
batches of 16; ``guided=false`` of both is SimCLR: the same without clusters.
"""

from papers.g_simclr.method import OnePerCluster
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.computed import Computed
from vision.data.sources.digits import Digits
from vision.data.sources.tfds import Tfds
from vision.evaluators.features.probe import LinearProbe
from vision.models.autoencoder import ConvAutoencoder
from vision.models.plain_conv import PlainConv
from vision.models.resnet import ResNet
from vision.objectives.reconstruct import Reconstruct
from vision.objectives.two_views import TwoViews
from vision.run.experiment import Experiment
from vision.scenario.features import Clusters
from vision.scenario.stages import Scenario, Stage
from vision.train.optim import Optimizer, adamw, sgd
from vision.train.schedule import Cosine

PROBED = {  # the paper's P1, P2 and P3: from behind the projection to before it
    "p1": "projector/block01",
    "p2": "projector/block00",
    "p3": "embedding",
}


def get_config(guided: bool = True) -> Config:
    autoencoder = spec(ConvAutoencoder, widths=(32, 64, 128))
    return stages(
        train=spec(Tfds, name="cifar10", split="train"),
        test=spec(Tfds, name="cifar10", split="test"),
        batch_size=64,
        guided=guided,
        autoencoder=run(autoencoder, "20 epochs", learning_rate=1e-3),
        model=spec(ResNet, depth=18, stem="cifar", num_classes=0),
        views=spec(ops.simclr_views, size=32, strength=0.5, blur=False),
        optimizer=spec(
            Optimizer, method=spec(sgd, momentum=0.9), learning_rate=0.1, schedule=spec(Cosine)
        ),
        total="15 epochs",
    )


def small(guided: bool = True) -> Config:
    one_view = [
        spec(ops.RandomResizedCrop, size=8, scale=(0.5, 1.0)),
        spec(ops.ColorJitter, brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0),
    ]
    return stages(
        train=spec(Digits, split="train"),
        test=spec(Digits, split="test"),
        batch_size=16,
        guided=guided,
        autoencoder=run(spec(ConvAutoencoder, widths=(8, 16)), "10 epochs", learning_rate=3e-3),
        model=spec(PlainConv, width=16, depth=2, num_classes=0),
        views=spec(ops.Views, pipelines=[one_view, one_view]),
        optimizer=spec(Optimizer, method=spec(adamw), learning_rate=2e-3, schedule=spec(Cosine)),
        total="4 epochs",
    )


def run(model, total, learning_rate):
    """Of the denoising autoencoder, whose data ``stages`` fills in."""
    optimizer = spec(Optimizer, method=spec(adamw), learning_rate=learning_rate)
    return {
        "model": model,
        "objective": spec(Reconstruct, noise=0.01),
        "optimizer": optimizer,
        "total": total,
    }


def stages(train, test, batch_size, guided, autoencoder, model, views, optimizer, total):
    values = spec(BatchValueRange, low=0, high=1)
    read = {"batch_size": 500, "ops": [spec(ops.ValueRange, low=0, high=1)]}

    def data(source, **more):
        return spec(TrainData, source=source, batch_size=batch_size, batch_ops=[values], **more)

    file = "stage:clusters/clusters.npy"
    clustered = data(
        spec(Computed, source=train, file=file, feature="cluster"),
        ops=[views],
        sampler=spec(OnePerCluster, clusters=batch_size),
    )
    contrast = spec(
        Experiment,
        data=clustered if guided else data(train, ops=[views]),
        model=model,
        objective=spec(TwoViews, projection=(256, 128, 50), temperature=0.1),
        optimizer=optimizer,
        total=total,
        evaluators={
            name: spec(
                LinearProbe,
                train=spec(EvalData, source=train, **read),
                test=spec(EvalData, source=test, **read),
                output=output,
            )
            for name, output in PROBED.items()
        },
    )
    if not guided:
        return spec(Scenario, stages=[spec(Stage, name="contrast", do=contrast)])
    clusters = spec(
        Clusters,
        run_of="stage:autoencoder",
        data=spec(EvalData, source=train, **read),
        clusters=batch_size,
    )
    learned = spec(Experiment, data=data(train, threads=0), **autoencoder)
    return spec(
        Scenario,
        stages=[
            spec(Stage, name="autoencoder", do=learned),
            spec(Stage, name="clusters", do=clusters),
            spec(Stage, name="contrast", do=contrast),
        ],
    )

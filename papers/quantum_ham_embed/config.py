"""Images as Hamiltonians, simulated: the digits 0 to 7 on three qubits, MNIST on five.

    python train.py --config=papers/quantum_ham_embed/config.py --workdir=workdirs/quantum

Quantum Hamiltonian Embedding of Images for Data Reuploading Classifiers, 2024, with its settings:
fifteen layers, all images in one batch, 500 epochs of Adam at 0.1. The authors draw 1,200 and 100
of scikit-learn's digits; here the repository's split stands, of 1,155 and 288.

``mnist`` reads TFDS, in batches of 1,000, padded to 32 x 32. ``small`` has ten layers and 300 steps
on 250 images; ``small,uploads=1`` uploads the image in the first of the ten only.
"""

import vision as v
from papers.quantum_ham_embed.method import HamiltonianEmbedding
from vision import batch_ops, ops, spec


def get_config() -> v.Config:
    return experiment(eight("train"), eight("test"), 1155, "500 epochs", 0.1, layers=15)


def mnist() -> v.Config:
    train, test = (spec(v.Tfds, name="mnist", split=split) for split in ("train", "test"))
    return experiment(train, test, 1000, "500 epochs", 0.1, layers=15)


def small(uploads: int | None = None) -> v.Config:
    train, test = eight("train"), eight("test")
    return experiment(train, test, 250, "300 steps", 0.05, layers=10, uploads=uploads)


def eight(split: str):
    names = tuple((name, name) for name in "01234567")
    return spec(v.Relabel, source=spec(v.Digits, split=split), mapping=names, unmapped="drop")


def experiment(train, test, batch_size, total, learning_rate, **model):
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=train,
            batch_size=batch_size,
            batch_ops=[spec(batch_ops.BatchValueRange, low=0, high=1)],
            threads=0,
        ),
        model=spec(HamiltonianEmbedding, **model),
        objective=spec(v.Classify),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=learning_rate,
            rules=[spec(v.ParameterRule, pattern=".*")],
        ),
        total=total,
        evaluators={
            "test": spec(
                v.Classification,
                data=spec(
                    v.EvalData,
                    source=test,
                    batch_size=288,
                    ops=[spec(ops.ValueRange, low=0, high=1)],
                ),
            ),
        },
        log_every="50 steps",
    )

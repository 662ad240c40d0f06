"""Runs with random weights, of a folder of images and of a dual encoder, and files to ask about."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.parts.own_images import held_out
from vision.config.cli import run_main
from vision.config.specs import load, spec
from vision.data import ops
from vision.data.pipeline import TrainData
from vision.data.sources.folder import Folder
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.predict.__main__ import main
from vision.predict.load import load as load_predictor
from vision.predict.predictor import Predictor
from vision.run.experiment import Experiment, check
from vision.run.initial import init_run
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Constant

ROOT = Path(__file__).resolve().parents[2]
SIZE = 16
# With a class token, as transformers has it.
TOWER: Any = {"width": 16, "depth": 3, "heads": 2, "patch": 4}
TOWER |= {"class_position": True, "head_zero_init": False}
CLASSES = ("ant", "bee, queen", "crane")


def call(*arguments: object) -> int:
    """The command, with its errors as lines."""
    return run_main(main, [str(each) for each in arguments])


def noise(seed: int, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class, of ten images each."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(10):
            (root / name / f"{i}.jpg").write_bytes(jpeg(noise(10 * number + i, (20 + i, 24))))
    return root


@pytest.fixture(scope="session")
def workdir(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT whose head reads the class token; its weights are random."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    to_range = spec(ops.ValueRange, low=-1, high=1)
    config = spec(
        Experiment,
        data=spec(
            TrainData,
            source=spec(Folder, root=str(data), part="train", fraction=0.1),
            batch_size=8,
            ops=[spec(ops.Decode), spec(ops.RandomResizedCrop, size=SIZE), to_range],
            threads=0,
        ),
        model=spec(ViT, **TOWER),
        objective=spec(Classify),
        optimizer=spec(
            Optimizer,
            method=spec(sgd),
            learning_rate=0.1,
            schedule=spec(Constant, warmup="0 steps"),
        ),
        evaluators={"val": held_out(str(data), SIZE, [to_range])},
        total="2 steps",
    )
    check(config)
    init_run(config, folder)
    return folder


@pytest.fixture(scope="session")
def run(workdir: Path) -> Predictor:
    return load_predictor(workdir)


@pytest.fixture(scope="session")
def dual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dual encoder of scenes, smaller, untrained."""
    folder = tmp_path_factory.mktemp("runs") / "clip"
    changes = {"model.width": "16", "model.text.width": "16", "model.text.heads": "2"}
    changes |= {"data.source.num_examples": "64", "data.batch_size": "8", "total": "2 steps"}
    changes |= {"optimizer.schedule.warmup": "0 steps"}
    config = load(str(ROOT / "configs" / "clip_scenes.py"), changes)
    check(config)
    init_run(config, folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of strangers: spaces, unicode, sub-folders, junk and broken files."""
    root = tmp_path / "my photos"
    (root / "Ünter ordner").mkdir(parents=True)
    (root / "a b.jpg").write_bytes(jpeg(noise(100)))
    (root / "Ünter ordner" / "größe.png").write_bytes(b"")
    Image.fromarray(noise(101, (40, 20))).save(root / "Ünter ordner" / "日本.PNG")
    Image.fromarray(noise(102)[..., 0]).save(root / "grey.png")
    (root / "broken.jpg").write_bytes(jpeg(noise(103))[:200])
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.jpg").write_bytes(jpeg(noise(104)))
    (root / "@eaDir").mkdir()
    (root / "@eaDir" / "thumb.jpg").write_bytes(jpeg(noise(105)))
    return root

"""Features on disk: kept, found again, and made again after any change."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.evaluators.linear_dual import TOKENIZER, WIDTH, WORDS, predict
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.source import SourceInfo
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import EvalContext, context
from vision.evaluators.features.store import FeatureStore, identity
from vision.evaluators.image_text.embeddings import IMAGE, TEXT, embed
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

COUNT = 21


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
    """Records, and how many of them were read."""

    source: Arrays
    times: list[int]

    @property
    def info(self) -> SourceInfo:
        return self.source.info

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.times.append(index)
        return self.source[index]

    def key(self, index: int) -> str:
        return self.source.key(index)

    def fingerprint(self) -> str:
        return self.source.fingerprint()


def arrays(change: float = 0.0) -> Arrays:
    image = np.random.default_rng(0).normal(size=(COUNT, 3, 4, 1)).astype(np.float32)
    image[-1, 0, 0, 0] += change
    texts = TOKENIZER.encode([f"number {i}" for i in range(COUNT)])
    return Arrays({"image": image, "text": texts, "label": np.arange(COUNT, dtype=np.int32)})


def variables(scale: float = 1.0) -> Variables:
    return Variables({"scale": np.float32(scale), "words": WORDS}, {}, {})


class Place:
    """A store, and what is asked of it."""

    def __init__(self, root: Path):
        self.root, self.times = root, []
        self.mesh = Mesh().build(jax.devices()[:1])

    def read(
        self,
        outputs: tuple[str, ...] = (IMAGE,),
        fields: tuple[str, ...] = ("label",),
        optional: tuple[str, ...] = (),
        *,
        source: Arrays | None = None,
        scale: float = 1.0,
        config: Any = "a model",
        before: tuple[Any, ...] = (),
        function: Any = predict,
    ) -> tuple[dict[str, np.ndarray], int]:
        """The rows, and how many records were read for them."""
        self.times.clear()
        weights = variables(scale)
        store = FeatureStore(self.root, predict, identity(weights, config))
        ctx: EvalContext = context(weights, 1, self.mesh, store=store)
        data = EvalData(Read(source or arrays(), self.times), 8, ops=before, threads=0)
        with jax.set_mesh(self.mesh):
            rows = embed(function, ctx, data, outputs, fields, optional)
        return rows, len(self.times)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "features")


def test_read_once_and_the_same(place: Place):
    first, times = place.read()
    assert times == COUNT
    again, times = place.read()
    assert times == 0
    assert set(first) == set(again) == {IMAGE, "label", "_index"}
    for name, x in first.items():
        assert np.array_equal(x, again[name]), name
        assert x.dtype == again[name].dtype, name
    assert isinstance(again[IMAGE], np.memmap)
    assert first[IMAGE].shape == (COUNT, WIDTH)


def test_names_are_added(place: Place):
    place.read()
    rows, times = place.read((IMAGE, TEXT))
    assert times == COUNT
    assert rows[TEXT].shape == (COUNT, WIDTH)
    assert place.read((TEXT,))[1] == 0


def test_what_batches_lack_is_remembered(place: Place):
    assert "text_mask" not in place.read(optional=("text_mask",))[0]
    rows, times = place.read(optional=("text_mask",))
    assert times == 0
    assert "text_mask" not in rows


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 2.0},
        {"config": "another model"},
        {"source": arrays(change=1e-6)},
        {"before": (ops.Keep(("image", "label")),)},
    ],
    ids=["weights", "config", "data", "ops"],
)
def test_any_change_is_read_anew(place: Place, change: dict[str, Any]):
    place.read()
    assert place.read(**change)[1] == COUNT
    assert place.read(**change)[1] == 0
    assert place.read()[1] == 0


def test_another_function_is_not_kept(place: Place):
    for _ in range(2):
        assert place.read(function=functools.partial(predict))[1] == COUNT
    assert not place.root.exists()


def test_a_damaged_file_is_made_again(place: Place, caplog: pytest.LogCaptureFixture):
    expected = place.read()[0]
    (file,) = place.root.rglob("image*.npy")
    file.write_bytes(file.read_bytes()[:-100])
    rows, times = place.read()
    assert times == COUNT
    assert np.array_equal(rows[IMAGE], expected[IMAGE])
    assert f"{file} is damaged" in caplog.text
    assert place.read()[1] == 0

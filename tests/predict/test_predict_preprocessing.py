"""Where the preprocessing of a run comes from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.predict.conftest import jpeg, noise
from vision.config.errors import UserError
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluators.accuracy.calibration import Calibration
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.features.probe import LinearProbe
from vision.predict.predictor import Predictor
from vision.predict.preprocessing import Prepared, of_run
from vision.run.restore import Run

SOURCE = Arrays({"image": np.zeros((1, 8, 8, 3), np.uint8)}, "none")


def data(*applied: Any) -> EvalData:
    return EvalData(SOURCE, batch_size=1, ops=applied)


def with_evaluators(
    run: Predictor, image: Any = ((8, 16, 16, 3), "uint8"), **evaluators: Any
) -> Run:
    assert run.run is not None
    batch = {"image": image} if image else {}
    return dataclasses.replace(
        run.run,
        experiment=dataclasses.replace(run.run.experiment, evaluators=evaluators),
        data_spec=dataclasses.replace(run.run.data_spec, batch=batch),
    )


FIT = (ops.Decode(), ops.Resize((16, 16)), ops.ValueRange())


def test_the_first_classification_comes_before_other_evaluators(run: Predictor):
    probe = LinearProbe(train=data(ops.ValueRange()), test=data(ops.ValueRange()))
    some = with_evaluators(
        run,
        probe=probe,
        calibration=Calibration(data(ops.Decode(), ops.ValueRange(high=2))),
        test=Classification(data(*FIT)),
        other=Classification(data(ops.ValueRange(high=3))),
    )
    taken = of_run(some)
    assert taken.where == "ops of evaluator 'test'"
    assert str(taken) == "ops of evaluator 'test': Decode, Resize(16x16), ValueRange"
    assert of_run(some, "calibration").ops[-1] == ops.ValueRange(high=2)
    assert of_run(with_evaluators(run, probe=probe)).where == "ops of evaluator 'probe'"
    with pytest.raises(UserError, match=r"=tset: the evaluator is not there.*'test'"):
        of_run(some, "tset")
    with pytest.raises(UserError, match=r"no evaluator that reads images.*--preprocessing=timm:"):
        of_run(with_evaluators(run))


def test_ops_of_labels_and_captions_are_left_out_and_named(run: Predictor):
    tokenizer: Any = type("T", (), {"length": 4})()
    applied = (
        ops.Keep(("image", "label")),
        *FIT,
        ops.LabelToCaption(names=("a", "b")),
        ops.Tokenize(tokenizer),
        ops.Drop(("label",)),
    )
    taken = of_run(with_evaluators(run, test=Classification(data(*applied))))
    assert taken.ops == FIT
    assert taken.left_out == (
        "Keep (of label)",
        "LabelToCaption (of label)",
        "Tokenize (of caption)",
        "Drop (of label)",
    )
    assert "without Keep (of label)" in str(taken)


def test_an_op_that_fails_by_itself_is_an_error(run: Predictor):
    """Resize looks for boxes too: that it finds none is not why it fails."""
    twice = (ops.Decode(), ops.ValueRange(), ops.ValueRange())
    with pytest.raises(UserError, match="evaluator 'test': ValueRange failed"):
        of_run(with_evaluators(run, test=Classification(data(*twice))))
    grey = (ops.Decode(mode="grey"), ops.Resize(16), ops.ValueRange(), ops.Normalize())
    with pytest.raises(UserError, match=r"Normalize failed: .*1 channels"):
        of_run(with_evaluators(run, test=Classification(data(*grey))))


@pytest.mark.parametrize(("channels", "mode"), [(1, "grey"), (3, "rgb"), (4, None)])
def test_decoding_comes_first_where_the_data_is_arrays(
    run: Predictor, channels: int, mode: str | None
):
    image = ((8, 16, 16, channels), "uint8")
    some = with_evaluators(run, image, test=Classification(data(ops.ValueRange())))
    taken = of_run(some)
    first = () if mode is None else (ops.Decode(mode=mode),)  # pyright: ignore[reportArgumentType]
    assert taken.ops == (*first, ops.ValueRange())
    assert (taken.mode, taken.shape, taken.any_size) == (mode, (16, 16, channels), False)


def test_sizes_that_no_op_mends_are_errors_of_the_image(run: Predictor):
    prepared = dataclasses.replace(
        run.preprocessing,
        ops=(ops.Decode(), ops.ValueRange(low=-1)),
        any_size=False,
    )
    fixed = dataclasses.replace(run, preprocessing=prepared)
    kept = fixed.predict([noise(0, (16, 16)), noise(1, (16, 17))], on_error="keep")
    assert kept.errors[0] is None
    assert "is 16 x 17 pixels" in str(kept.errors[1])
    assert "resize the image" in str(kept.errors[1])
    with pytest.raises(DataError, match="image 0: is 9 x 9 pixels"):
        fixed.explain(noise(1, (9, 9)))


def test_of_many_sizes_only_those_of_the_run_are_read(run: Predictor):
    """The shorter side becomes 16, and nothing crops."""
    some = with_evaluators(run, test=Classification(data(ops.Resize(16), ops.ValueRange())))
    taken = of_run(some)
    assert (taken.shape, taken.any_size) == ((16, 16, 3), False)
    unknown = with_evaluators(run, None, test=Classification(data(ops.Resize(16))))
    with pytest.raises(UserError, match="do not bring images to one size"):
        of_run(unknown)


def test_numbers_without_a_known_range_are_refused(run: Predictor):
    floats = ((8, 16, 16, 3), "float32")
    with pytest.raises(UserError, match=r"float32 in their source.*--preprocessing"):
        of_run(with_evaluators(run, floats, test=Classification(data())))
    assert of_run(with_evaluators(run, test=Classification(data()))).dtype == np.uint8


def test_a_card_says_it_too(run: Predictor, tmp_path: Path):
    card = {"size": [16, 16], "resized": [20, 20], "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "preprocessing.json").write_text(json.dumps(card))
    taken = of_run(with_evaluators(run), f"safetensors:{tmp_path}")
    assert isinstance(taken, Prepared)
    assert taken.where == f"card {tmp_path}/preprocessing.json"
    assert (taken.shape, taken.any_size, taken.mode) == ((16, 16, 3), True, "rgb")
    one = dataclasses.replace(run, preprocessing=taken)
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(noise(3, (40, 30))))
    assert one.predict(path)[0].error is None

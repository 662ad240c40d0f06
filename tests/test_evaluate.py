"""evaluate.py beyond one checkpoint: weights that nobody trained, suites, failures, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluate
import train
from vision.checkpoint.evaluations import read_evaluations
from vision.checkpoint.reading import load_state
from vision.config import specs
from vision.config.cli import run_main
from vision.config.schema import ConfigError
from vision.programs.compare import CompareError, compare, distinct_names, outcome
from vision.programs.suite import SUITES
from vision.programs.workdir import evaluate_workdir
from vision.run import loop

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    f"--config={ROOT}/tests/patch_digits.py",
    "--config.evaluators.test.data.batch_size=64",
]


def call(*arguments: str, program: Any = evaluate) -> int:
    return run_main(program.main, list(arguments))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that nobody trained."""
    root = tmp_path_factory.mktemp("runs")
    quick = ("--suite=quick", "--evaluators=test")
    assert call(*SMALL, f"--workdir={root / 'a'}", *quick) == 0
    assert call(*SMALL, f"--workdir={root / 'b'}", "--config.seed=1", *quick) == 0
    return root


def test_weights_that_nobody_trained_are_a_run(runs: Path, capsys: pytest.CaptureFixture[str]):
    step, before = load_state(runs / "a")
    assert step == 0
    assert not (runs / "a" / "metrics.jsonl").exists()
    assert call(*SMALL, f"--workdir={runs / 'a'}", "--evaluators=test") == 0
    assert "top1" in capsys.readouterr().out
    again = load_state(runs / "a")[1]
    assert all(np.array_equal(x, again[name]) for name, x in before.items())
    assert call(*SMALL, f"--workdir={runs / 'a'}", "--config.seed=5") == 2
    assert "config.seed: 0 -> 5" in capsys.readouterr().err


@pytest.mark.slow
def test_a_member_that_fails_leaves_the_others_and_a_line_in_table_page_and_status(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "broken"
    asked = ("--config.evaluators.test.label=digit", "--suite=quick")
    assert call(*SMALL, *asked, f"--workdir={broken}") == 1
    said = capsys.readouterr().out
    assert "2 of 3 evaluators failed" in said
    assert "has no 'digit'" in said
    assert "parameters" in said
    found = json.loads((broken / "evaluation.json").read_text())["evaluators"]
    assert "needs 'digit'" in found["test"]["error"]
    assert found["cost"]["metrics"]["parameters"] > 0
    assert "has no &#39;digit&#39;" in (broken / "report.html").read_text()


def test_suites_and_evaluators_are_named(runs: Path, capsys: pytest.CaptureFixture[str]):
    assert call(f"--workdir={runs / 'a'}", "--suite=fall") == 2
    assert "did you mean 'full'?" in capsys.readouterr().err
    assert call(f"--workdir={runs / 'a'}", "--suite=quick", "--evaluators=csot") == 2
    assert "did you mean 'cost'?" in capsys.readouterr().err
    assert call(f"--workdir={runs / 'a'}", "--suite") == 2
    assert "--suite needs a value" in capsys.readouterr().err
    assert call(f"--workdir={runs / 'a'}", "--config.seed=1") == 2
    assert "without --config=FILE" in capsys.readouterr().err
    assert set(SUITES["quick"]) < set(SUITES["full"])


def test_comparison_is_of_the_same_examples(runs: Path, tmp_path: Path):
    out = tmp_path / "compared"
    assert call(f"--compare={runs / 'a'},{runs / 'b'}", f"--out={out}") == 0
    found = json.loads((out / "compare.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["a", "b"]
    for run in found["runs"]:
        alone = evaluate_workdir(Path(run["workdir"]), tmp_path / run["name"], names=["test"])
        metrics = alone["evaluators"]["test"]["metrics"]
        assert run["metrics"]["test"]["top1"] == pytest.approx(metrics["top1"])
        assert run["metrics"]["test"]["nll"] == pytest.approx(metrics["nll"], rel=1e-5)
        low, high = run["intervals"]["test/top1"]
        assert low <= metrics["top1"] <= high
        assert run["cost"]["parameters"] > 0
        assert run["cost"]["latency_ms"] <= run["cost"]["latency_ms_p90"]
        assert run["config"]["seed"] == {"a": 0, "b": 1}[run["name"]]
    pair = found["pairs"][0]
    assert pair["metric"] == "top1"
    assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]
    flips = pair["only_b_right"] - pair["only_a_right"]
    assert pair["difference"] == pytest.approx(flips / found["examples"])
    page = (out / "compare.html").read_text()
    assert page.count("data:image/png") >= 1
    assert "90%: " in page
    differing = page[page.index('id="configs"') : page.index('id="curves"')]
    assert differing.count("<code>seed</code>") == 1
    assert differing.count("<code>model.width</code>") == 0
    assert "there are no curves to lay over" in page  # nobody trained them
    assert all(each["before"] != each["after"] for each in found["changed"])


def test_runs_that_were_not_asked_the_same_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other"
    split = "--config.evaluators.test.data.source.split=train"
    assert call(*SMALL, split, f"--workdir={other}", "--evaluators=test") == 0
    with pytest.raises(CompareError, match="read other records: 359 and 1,438"):
        compare([runs / "a", other])
    with pytest.raises(CompareError, match="two or more different"):
        compare([runs / "a", runs / "a"])
    with pytest.raises(ConfigError, match=r"'tests' .* is not there; did you mean 'test'"):
        compare([runs / "a", runs / "b"], evaluator="tests")
    assert call(f"--compare={runs / 'a'},{runs / 'b'}") == 2
    assert "--compare needs --out=FOLDER" in capsys.readouterr().err
    assert call(f"--compare={runs / 'a'}", f"--workdir={runs}", "--out=x") == 2
    assert "do not go together" in capsys.readouterr().err


def test_training_goes_on_from_weights_that_were_evaluated(runs: Path):
    assert call(*SMALL, "--config.seed=1", f"--workdir={runs / 'b'}", program=train) == 0
    assert load_state(runs / "b")[0] == 2


def test_names_tell_folders_apart():
    assert distinct_names([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert distinct_names([Path("/x/a/run"), Path("/x/b/run")]) == ["a/run", "b/run"]


def test_outcomes_of_missing_labels_and_nan():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [np.nan, 1.0], [1.0, 1.0]])
    found = outcome(logits, np.array([0, -1, 1, 1]))
    assert found["place"].tolist() == [0, 2, 3]
    assert found["right"].tolist() == [True, False, False]
    assert found["predicted"].tolist() == [0, -1, 0]
    np.testing.assert_allclose(found["loss"][[0, 2]], [np.log1p(np.exp(-2)), np.log(2)])
    assert np.isnan(found["loss"][1])
    with pytest.raises(CompareError, match="none of the records has a label"):
        outcome(logits, np.full(4, -1))


def test_best_step_and_changed_evaluators(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    workdir, out = tmp_path / "w", tmp_path / "out"
    flags = (flag.removeprefix("--config.").split("=", 1) for flag in SMALL[1:])
    trained: Any = specs.load(SMALL[0].partition("=")[2], dict(flags))
    trained.total, trained.evaluate_every = "4 steps", "1 steps"
    trained.checkpoints.every, trained.checkpoints.keep = "1 steps", 9
    loop.train(trained, workdir)
    measured = read_evaluations(workdir / "checkpoints")
    top1 = {step: row.metrics["test/top1"] for step, row in measured.items()}
    assert sorted(top1) == [1, 2, 3, 4]
    best = max(top1, key=lambda step: (top1[step], step))
    flags = (f"--workdir={workdir}", f"--out={out}", "--config.evaluators.test.data.batch_size=120")
    assert call(*flags, "--step=best:test/top1") == 0
    assert f"step {best} is best by test/top1 (max)" in capsys.readouterr().out
    report = json.loads((out / "evaluation.json").read_text())
    assert report["step"] == best
    found = report["evaluators"]["test"]["metrics"]
    assert found["top1"] == pytest.approx(top1[best], abs=1e-6)
    assert found["examples"] == 359
    for wrong, words in (
        ("--step=best", "best:test/top1"),
        ("--step=best:test/top11", "no checkpoint in"),
        ("--step=bets", "neither a number nor best"),
        ("--config.total=3 steps", "only --config.evaluators"),
        ("--config.evaluators.tset.data.batch_size=3", "tset"),
    ):
        capsys.readouterr()
        assert call(f"--workdir={workdir}", f"--out={out}", wrong) == 2
        assert words in capsys.readouterr().err

"""Claims run in processes of their own; the sample of a commit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.papers.example_tree import finish, header, repository, result
from vision.papers.discover import PaperError, all_papers
from vision.papers.ledger import ROOT, fault
from vision.papers.results import read, write
from vision.papers.run_claims import command, environment, run, sample, sampled

CLAIM = """
import os

import jax

from {package}.method import NUMBER
from vision.papers.claims import Margin, Measured, Scale, Side

MARGIN = Margin(0.5, rule="half of one")


def test_it(record):
    assert jax.device_count() == 1 and jax.default_backend() == "cpu"
    assert "optimization_level" not in os.environ["XLA_FLAGS"]
    assert "--xla_cpu_max_isa=SSE4_2" in os.environ["XLA_FLAGS"]
    assert jax.config.jax_compilation_cache_dir == os.environ["EXPECTED_CACHE"]
    record(
        claim="A number is two.", expected="held", seeds=(), margin=MARGIN,
        scale=Scale(best=4, chance=0.5),
        compared=Measured("number", Side("it", (NUMBER,) * 5), Side("one", (1,) * 5)),
        control=Measured("one", Side("it", (1,) * 5), Side("one", (1,) * 5)),
    )
"""


@pytest.fixture
def outsider(tmp_path: Path) -> Path:
    """A folder beside which a conftest.py and an ini file would break any test."""
    folder = tmp_path / "mine" / "tiny"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(header())
    (folder / "method.py").write_text("NUMBER = 2\n")
    (folder / "claim.py").write_text(CLAIM.format(package="tiny"))
    (folder / "conftest.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "mine" / "pytest.ini").write_text("[pytest]\naddopts = --nothing\ntestpaths = no\n")
    return folder


@pytest.mark.slow
def test_a_claim_runs_on_its_own_is_recorded_and_compared(
    outsider: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_cpu_max_isa=SSE4_2")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("EXPECTED_CACHE", os.environ["JAX_COMPILATION_CACHE_DIR"])
    monkeypatch.chdir(tmp_path)
    assert run([outsider], ROOT, record=True) == 0
    assert "tiny: held" in capfd.readouterr().out
    recorded = read(outsider / "result.json")
    assert recorded.outcome == "held"
    assert list(recorded.depends) == ["tiny/claim.py", "tiny/method.py"]
    assert fault(outsider, ROOT) is None
    (outsider / "method.py").write_text("NUMBER = 0\n")
    assert run([outsider], ROOT, record=False) == 1
    printed = capfd.readouterr()
    assert "expected='held', but the claim is refuted" in printed.out
    assert "1 of 1 failed: tiny" in printed.err
    assert read(outsider / "result.json") == recorded


def test_the_environment_of_a_claim(tmp_path: Path):
    inside = environment(tmp_path / "papers" / "margin", tmp_path, {})
    assert inside["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), str(ROOT)]
    assert inside["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / ".cache" / "jax")
    assert inside["JAX_PLATFORMS"] == "cpu"
    base = {"PYTHONPATH": "/more", "JAX_COMPILATION_CACHE_DIR": "/shared"}
    outside = environment(Path("/mine/tiny"), tmp_path, base)
    assert outside["PYTHONPATH"].split(os.pathsep) == ["/mine", str(tmp_path), str(ROOT), "/more"]
    assert outside["JAX_COMPILATION_CACHE_DIR"] == "/shared"
    assert "--record" in command(Path("/mine/tiny"), record=True)
    assert "--record" not in command(Path("/mine/tiny"), record=False)


def test_a_paper_without_a_claim_is_named(tmp_path: Path):
    folder = repository(tmp_path)
    (folder / "claim.py").unlink()
    with pytest.raises(PaperError, match="margin has no claim"):
        run([folder], tmp_path, record=False)


def test_the_sample_fits_the_budget_and_comes_round_to_every_claim():
    claims = [
        (Path(name), seconds) for name, seconds in zip("abcde", (40, 50, 300, 20, 1), strict=True)
    ]
    assert sample(claims, 0, 90) == [Path("a"), Path("b")]
    assert sample(claims, 4, 90) == [Path("e"), Path("a"), Path("d")]
    assert sample(claims, 7, 90) == [Path("c")]
    assert {sample(claims, turn, 90)[0] for turn in range(5)} == {path for path, _ in claims}
    assert sample([], 3, 90) == []


def test_the_sample_of_a_commit_needs_results(tmp_path: Path):
    folder = repository(tmp_path)
    with pytest.raises(PaperError, match="no claim with a result"):
        sampled(all_papers(tmp_path), tmp_path)
    finish(folder, tmp_path)
    assert sampled(all_papers(tmp_path), tmp_path, 0) == [folder]
    write(result(), folder / "result.json")
    (folder / "claim.py").unlink()
    with pytest.raises(PaperError, match="no claim with a result"):
        sampled(all_papers(tmp_path), tmp_path)

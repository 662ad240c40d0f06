"""The cached dual encoder: it learned something, and it is trained once."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tests import toyclip as cache
from vision.run.restore import Run


@pytest.fixture(scope="module")
def measured(toyclip: Run) -> dict[str, float]:
    """What the run's own evaluators found at its end."""
    assert toyclip.step == 100
    rows = (cache.trained() / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {key: value for row in map(json.loads, rows) for key, value in row.items()}


@pytest.mark.slow
def test_classes_are_named_far_above_chance(measured: dict[str, float]):
    assert measured["seen/examples"] == 512
    assert measured["seen/top1"] > 4 / 36


@pytest.mark.slow
def test_images_find_their_captions_far_above_chance(measured: dict[str, float]):
    assert measured["retrieval/images"] == measured["retrieval/texts"] == 256
    assert measured["retrieval/image_to_text_r1"] > 8 / 256
    assert measured["retrieval/text_to_image_r1"] > 8 / 256


@pytest.mark.slow
def test_the_fixture_embeds_images_and_texts(toyclip: Run):
    batch = {"image": jnp.zeros((8, 32, 32, 3)), "text": jnp.ones((8, 44), jnp.int32)}
    with jax.set_mesh(toyclip.mesh):
        found = jax.jit(toyclip.predict)(toyclip.variables, batch)
    for side in ("image", "text"):
        assert jnp.allclose(jnp.linalg.norm(found[f"{side}/embedding"], axis=-1), 1, atol=1e-5)


@pytest.mark.slow
def test_a_second_use_takes_the_same_files(toyclip: Run):
    config = cache.settings()
    before = {p: p.stat().st_mtime_ns for p in cache.folder(config).rglob("*") if p.is_file()}
    workdir = cache.trained()
    assert workdir == cache.folder(config)
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}


def test_another_config_is_another_folder(tmp_path: Path):
    folders = {
        cache.folder(cache.settings(total, overrides), tmp_path)
        for total in (cache.QUICK, "7 steps", None)
        for overrides in ({}, {"seed": "1"}, {"model.width": "48"})
    }
    assert len(folders) == 9
    assert cache.folder(cache.settings(), tmp_path) in folders

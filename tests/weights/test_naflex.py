"""SigLIP2 on images of any shape against transformers: see bench/goldens/weights_naflex.py."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vision.config.specs import build
from vision.data import ops
from vision.data.ops.patchify import patches_within
from vision.models.naflex import NaflexViT
from vision.models.vit import ViT
from vision.train.tower import forward, initialise
from vision.weights import cards
from vision.weights.agreement import check
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError, save
from vision.weights.naflex import NaflexPreprocessing
from vision.weights.names import names_of
from vision.weights.preprocessing import of_ops
from vision.weights.pretrained import Pretrained, PretrainedOps
from vision.weights.tower_cards import read_tower

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "weights" / "naflex.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights and cards as transformers lays them out."""
    folder = tmp_path_factory.mktemp("naflex")
    with safe_open(GOLDEN, "numpy") as file:
        for name, content in file.metadata().items():
            (folder / name).write_text(content)
    tensors = load_file(GOLDEN)
    found = {k[8:]: x.astype(np.float32) for k, x in tensors.items() if k[:8] == "weights/"}
    save_file(found, folder / "model.safetensors")
    return f"transformers:{folder}"


def prepared(source: str) -> np.ndarray:
    golden = load_file(GOLDEN)
    found: list[np.ndarray] = []
    for i in range(5):
        example: dict[str, Any] = {"image": golden[f"picture/{i}"]}
        for op in (build(op) for op in PretrainedOps(source).expanded()[1:]):  # decoded already
            example = op(example, np.random.default_rng(0))
        found.append(example["image"])
    return np.stack(found)


def test_the_name_is_enough(source: str):
    """Patches of five aspect ratios to the last bit, and what the tower computes of them."""
    golden, patches = load_file(GOLDEN), prepared(source)
    np.testing.assert_array_equal(patches[:, 0, -2:], golden["grids"])
    np.testing.assert_allclose(patches[..., :-2], golden["patches"], rtol=0, atol=3e-7)
    tower = build(Pretrained(source).expanded())
    assert isinstance(tower, NaflexViT)
    assert tower.grid == (3, 3)
    shapes = jax.eval_shape(functools.partial(initialise, tower), jax.random.key(0), patches)
    tree = dict(zip(("params", "model_state"), shapes, strict=True))
    tree = InitFrom(source).load(tower, jax.tree.map(lambda x: np.full(x.shape, 7.0), tree))

    def embeddings(params: Any, x: jax.Array) -> jax.Array:
        return forward(tower, params, {}, x, train=False)[0]

    jitted = jax.jit(embeddings, compiler_options={"xla_backend_optimization_level": 0})
    found = jitted(tree["params"], patches)
    error = np.abs(found - golden["embedding"]).max() / np.abs(golden["embedding"]).max()
    assert error < 2e-6
    # What lies in the padding is read by no token.
    noisy = patches.copy()
    for row, (rows, columns) in zip(noisy, golden["grids"], strict=True):
        row[rows * columns :, :-2] = 100.0
    np.testing.assert_allclose(jitted(tree["params"], noisy), found, rtol=0, atol=1e-6)
    weights = {k[8:]: x for k, x in golden.items() if k[:8] == "weights/"}
    written = save(names_of("transformers", tower, weights), {"params": tree["params"]})
    assert written.keys() == weights.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, weights[name].astype(np.float32), err_msg=name)


def test_a_tower_for_images_of_one_size_is_the_same_weights(source: str):
    card = read_tower(source)
    assert card is not None
    tower = build(card.config)
    check(card, tower.as_vit())
    check(card, tower)
    with pytest.raises(WeightsError, match=r"heads=2, but the config's has heads=4"):
        check(card, tower.clone(heads=4))
    with pytest.raises(WeightsError, match=r"grid=\(3, 3\), but the config's has grid=\(4, 4\)"):
        check(card, tower.clone(grid=(4, 4)))
    with pytest.raises(WeightsError, match="activation='gelu_tanh', but the config's has"):
        check(card, tower.as_vit().clone(activation="gelu"))
    assert isinstance(tower.as_vit(), ViT)


def test_preprocessing_there_and_back(source: str, tmp_path: Path):
    found = cards.read(source)
    assert found is not None
    card = found[0]
    assert isinstance(card, NaflexPreprocessing)
    assert card == NaflexPreprocessing(patch=4, most=13)
    assert of_ops(card.evaluation(), (13, 50)) == card
    assert card.at(16).most == 16
    assert card.size == (12, 12)
    (tmp_path / cards.OURS).write_text(json.dumps(cards.written("safetensors", card)))
    again = cards.read(f"safetensors:{tmp_path}")
    assert again is not None
    assert again[0] == card
    with pytest.raises(WeightsError, match="timm gets no card here of images of any shape"):
        cards.written("timm", card)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": True}, "do_center_crop is no step of SigLIP2's processor: true"),
        ({"do_resize": False}, "do_resize leaves a step out"),
        ({"max_num_patches": 0}, "max_num_patches is no size: 0"),
        ({"patch_size": [4, 5]}, "patch_size is not square, as patches here are"),
        ({"min_patches": 3}, "min_patches is not known here"),
    ],
)
def test_cards_that_are_refused(source: str, tmp_path: Path, change: dict[str, Any], message: str):
    file = "preprocessor_config.json"
    content = json.loads((Path(source.partition(":")[2]) / file).read_text())
    (tmp_path / file).write_text(json.dumps({**content, **change}))
    with pytest.raises(WeightsError, match=message):
        cards.read(f"transformers:{tmp_path}")


def test_wrong_images_are_named():
    assert patches_within(1, 5000, 16, 256) == (1, 256)
    example = {"image": np.zeros((8, 12, 3), np.float32)}
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="8 x 12 is not up to 5 patches of 4 x 4"):
        ops.Patchify(4, 5)(example, rng)
    with pytest.raises(ValueError, match="put ValueRange before Patchify"):
        ops.Patchify(4, 6)({"image": np.zeros((8, 12, 3), np.uint8)}, rng)
    with pytest.raises(
        ValueError, match=r"ops.Patchify make, not an array of shape \(1, 8, 8, 3\)"
    ):
        initialise(NaflexViT(width=8, depth=1, heads=1), jax.random.key(0), np.zeros((1, 8, 8, 3)))

"""A tower with weights that no run trained here."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.predict.conftest import noise
from vision.checkpoint.reading import flatten
from vision.models.vit import ViT
from vision.predict.preprocessing import of_preprocessing
from vision.predict.pretrained import of_tower
from vision.train.tower import forward, initialise
from vision.weights.mapping import WeightsError
from vision.weights.preprocessing import Preprocessing

SIZES = {"width": 8, "depth": 2, "heads": 2, "patch": 8, "pool": "mean", "head_zero_init": False}
CARD = Preprocessing((16, 16), mean=(0.5,) * 3, std=(0.5,) * 3, mode="squash")


def test_a_tower_says_what_its_weights_say_and_explains_it(tmp_path: Path):
    model = ViT(**SIZES, num_classes=3)  # pyright: ignore[reportArgumentType]
    image = noise(0, (16, 16))
    inputs = jnp.asarray(image[None] / 127.5 - 1, jnp.float32)
    params, state = jax.jit(lambda: initialise(model, jax.random.key(0), inputs))()
    leaves = flatten({"params": params, "model_state": dict(state)})
    save_file({name: np.asarray(x) for name, x in leaves.items()}, tmp_path / "w.safetensors")
    source = f"safetensors:{tmp_path}/w.safetensors"
    prepared = of_preprocessing(CARD, "the card")
    run = of_tower(model, source, prepared, ("ant", "bee", "ant"))
    assert run.classes == ("ant (0)", "bee", "ant (2)")
    logits = jax.jit(lambda x: forward(model, params, state, x, train=False)[1]["logits"])(inputs)
    said = run.predict(image).probabilities
    np.testing.assert_allclose(said[0], jax.nn.softmax(logits[0]), rtol=1e-4)
    assert run.explain(image).heat.shape == (16, 16)
    other = ViT(**SIZES, num_classes=4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(WeightsError, match="head"):
        of_tower(other, source, prepared, ("a", "b", "c", "d"))

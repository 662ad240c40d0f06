"""Towers by their cards alone, at two sizes: goldens of bench/goldens/weights_families.py."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.slow import with_slow
from vision.config.specs import build
from vision.train.tower import forward, initialise
from vision.weights.init_from import InitFrom
from vision.weights.mapping import save
from vision.weights.names import names_of
from vision.weights.pretrained import Pretrained
from vision.weights.reader import open_weights

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "weights" / "families"
CARDS = json.loads((GOLDENS / "cards.json").read_text())


# Fields that towers need for the other size of images.
OTHER = {"timm_maxvit": {"window": (2, 3)}}


def source_of(case, folder):
    """The source of a case, laid out as a library would; and what was computed from it."""
    card, tensors = CARDS[case], load_file(GOLDENS / f"{case}.safetensors")
    (folder / card["file"]).write_text(json.dumps(card["content"]))
    found = {k.removeprefix("weights/"): x for k, x in tensors.items() if k[:8] == "weights/"}
    save_file(
        {k: x.astype(np.float32) if x.dtype == np.float16 else x for k, x in found.items()},
        folder / "model.safetensors",
    )
    return f"{card['scheme']}:{folder}", {k: x for k, x in tensors.items() if k[:8] != "weights/"}


def fresh(tower, images):
    """Variables of a tower for images of this shape, every number 7."""
    params, state = jax.eval_shape(functools.partial(initialise, tower), jax.random.key(0), images)
    tree = {"params": params, "model_state": dict(state)}
    return jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), tree)


def compare(tower, tree, images, expected):
    def apply(tree, images):
        out = forward(tower, tree["params"], tree["model_state"], images, train=False)[1]
        return {name: out[name] for name in expected}

    options = {"xla_backend_optimization_level": 0}
    found = jax.jit(apply, compiler_options=options)(tree, images)
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape, name
        error = np.abs(found[name] - wanted).max() / np.abs(wanted).max()
        assert error <= 5e-6, (name, error)


# Another kind of a family that is here too, and the two dearest.
SLOW = {
    *(
        "timm_maxvit",
        "timm_xcit_p8",
        "timm_swin_v2_trained",
        "timm_so150m_class",
        "timm_swin_small",
    ),
    *("open_clip_coca_wide", "transformers_swin_v2_headless", "transformers_dinov3_gated"),
    *("transformers_dinov2_none", "transformers_beit_shared", "timm_eva02_clip", "timm_xcit"),
}


@pytest.mark.parametrize("case", with_slow(CARDS, SLOW))
def test_the_name_is_enough(case, tmp_path):
    source, golden = source_of(case, tmp_path)
    tower = build(Pretrained(source).expanded(), num_classes=5 if "out/logits" in golden else None)
    for prefix in ("", "other/"):
        if f"{prefix}images" not in golden:
            continue
        images = golden[f"{prefix}images"].astype(np.float32)
        if f"{prefix}ids" in golden:
            images = {"image": images, "text": golden[f"{prefix}ids"]}
        place = f"{prefix}out/"
        if prefix:
            tower = tower.clone(**OTHER.get(case, {}))
        expected = {k.removeprefix(place): x for k, x in golden.items() if k.startswith(place)}
        tree = InitFrom(source, head="read").load(tower, fresh(tower, images))
        compare(tower, tree, images, expected)
        if prefix:
            continue
        weights = open_weights(tmp_path)
        names = names_of(CARDS[case]["scheme"], tower, weights)
        back = save(names, tree)
        for name in weights.keys() - back.keys():
            assert any(re.fullmatch(pattern, name) for pattern in names.ignored), name
        for name, array in back.items():
            np.testing.assert_array_equal(array, weights[name][...], err_msg=name)

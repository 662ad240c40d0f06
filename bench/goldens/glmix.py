"""What the authors' GLNet answers with our drawn weights: AUTHORS of papers/glmix/test_method.py.

    git clone https://github.com/rayleizhu/GLMix
    python -m bench.goldens.glmix write W.npz 16g                  # weights, image; our logits
    PEERS/bin/python bench/goldens/glmix.py GLMix/models/glnet.py W.npz 16g     # theirs, with torch

The first needs this project, the second torch and timm; variants are ``16g`` and ``stl_learned``.
Both print logits (2, 5).
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

HEAD = 32
# The authors' arguments; four stages of one block, or two in the third.
THEIRS: dict[str, dict[str, Any]] = {
    "16g": {
        "depth": [1, 1, 2, 1],
        "mlp_ratios": [3] * 4,
        "mixing_modes": ("glmix", "glmix", "glmix.mha_nchw", "mha_nchw"),
        "slot_init": "ada_avgpool",
        "cpe_ks": 3,
        "downsample_style": "ovlp",
        "transition_layout": "proj.norm",
        "mlp_dw": True,
        "layerscale": 1e-4,
    },
    "stl_learned": {
        "depth": [1, 1, 1, 1],
        "mlp_ratios": [4] * 4,
        "mixing_modes": ("glmix", "glmix", "glmix", "mha"),
        "slot_init": "param",
        "transition_layout": "norm.proj",
    },
}


def write(path: str, variant: Any) -> None:
    """Weights by path, the image, and our logits."""
    import jax

    from papers.glmix.method import GLNet
    from papers.glmix.test_method import AUTHORS, SIZES, image
    from tests.models.tower_cases import random_variables, run
    from vision.parallel.mesh import path_of

    depths, shape, _ = AUTHORS[variant]
    tower = GLNet(variant, depths=depths, **SIZES)
    variables = random_variables(tower, shape)
    flat = {
        path_of(keys): np.asarray(leaf)
        for tree in variables
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    np.savez(path, **flat, image=np.asarray(image(shape)))
    print(np.asarray(run(tower, variables, image(shape))["logits"]))


def state_dict(ours: dict[str, np.ndarray], variant: str) -> dict[str, np.ndarray]:
    """Our arrays under the authors' names and in PyTorch's layouts."""
    found: dict[str, np.ndarray] = {}

    def layer(theirs: str, name: str) -> None:
        kernel = ours[f"{name}/kernel"]
        found[f"{theirs}.weight"] = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
        found[f"{theirs}.bias"] = ours[f"{name}/bias"]

    def norm(theirs: str, name: str) -> None:
        found[f"{theirs}.weight"], found[f"{theirs}.bias"] = (
            ours[f"{name}/{part}"] for part in ("scale", "bias")
        )
        if f"batch_stats/{name}/mean" in ours:
            found[f"{theirs}.running_mean"] = ours[f"batch_stats/{name}/mean"]
            found[f"{theirs}.running_var"] = ours[f"batch_stats/{name}/var"]
            found[f"{theirs}.num_batches_tracked"] = np.zeros((), np.int64)

    swin = variant != "16g"
    for stage in range(4):
        name, theirs = f"down{stage}" if stage else "stem", f"downsample_layers.{stage}"
        first = swin and stage > 0  # the norm
        layer(f"{theirs}.{int(first)}" if swin or stage else f"{theirs}.1", f"{name}/conv1")
        norm(f"{theirs}.{int(not first)}" if swin or stage else f"{theirs}.2", f"{name}/norm1")
    if not swin:
        layer("downsample_layers.0.4", "stem/conv2")
        norm("downsample_layers.0.5", "stem/norm2")
    number = 0
    for stage, depth in enumerate(THEIRS[variant]["depth"]):
        for i in range(depth):
            _block(f"block{number:02d}", f"stages.{stage}.blocks.{i}", ours, found, layer, norm)
            number += 1
    norm("norm", "norm")
    layer("head", "head")
    return found


def _block(name: str, theirs: str, ours: Any, found: Any, layer: Any, norm: Any) -> None:
    slots = f"{name}/scale" in ours
    attention = f"{theirs}.{'relation_mha' if slots else 'mha_op'}"
    qkv = ours[f"{name}/attn/qkv/kernel"]
    width = len(qkv)
    by_head = qkv.reshape(width, -1, 3, HEAD).transpose(2, 1, 3, 0)  # ours: head by head
    found[f"{attention}.in_proj_weight"] = by_head.reshape(3 * width, width)
    bias = ours[f"{name}/attn/qkv/bias"].reshape(-1, 3, HEAD).transpose(1, 0, 2)
    found[f"{attention}.in_proj_bias"] = bias.reshape(3 * width)
    layer(f"{attention}.out_proj", f"{name}/attn/proj")
    for i in (1, 2):
        norm(f"{theirs}.norm{i}", f"{name}/norm{i}")
        if f"{name}/ls{i}/gamma" in ours:
            found[f"{theirs}.ls{i}.gamma"] = ours[f"{name}/ls{i}/gamma"]
    if slots:
        found[f"{theirs}.slot_scale"] = ours[f"{name}/scale"]
        for i in (1, 2, 3):
            layer(f"{theirs}.feature_conv.{i - 1}", f"{name}/local{i}")
    if f"{name}/slots" in ours:
        found[f"{theirs}.init_slots"] = ours[f"{name}/slots"]
    second = "mlp.2" if not slots and f"{name}/fc_local/kernel" not in ours else "mlp.3"
    places = {"position": "pos_conv", "fc1": "mlp.0", "fc_local": "mlp.1", "fc2": second}
    for ours_name, place in places.items():
        if f"{name}/{ours_name}/kernel" in ours:
            layer(f"{theirs}.{place}", f"{name}/{ours_name}")


def answer(source: str, path: str, variant: str) -> None:
    """Their logits."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # see bench/peers/parity_model.py
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    checkpoint = types.ModuleType("fairscale.nn.checkpoint")
    vars(checkpoint)["checkpoint_wrapper"] = lambda module: module
    for name in ("fairscale", "fairscale.nn"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["fairscale.nn.checkpoint"] = checkpoint
    sys.path.insert(0, str(Path(source).parent))
    import glnet  # pyright: ignore[reportMissingImports] - the authors' file

    model = glnet.GLNet(
        num_classes=5,
        embed_dim=[32, 64, 64, 32],
        head_dim=HEAD,
        norm_layer=torch.nn.BatchNorm2d,
        num_slots=16,
        **THEIRS[variant],
    ).eval()
    with np.load(path) as file:
        ours = dict(file)
    sizes = {name: x.shape for name, x in model.state_dict().items()}
    weights = {
        name: torch.tensor(np.ascontiguousarray(x)).reshape(sizes[name])
        for name, x in state_dict(ours, variant).items()
    }
    model.load_state_dict(weights)
    with torch.no_grad():
        print(model(torch.tensor(ours["image"].transpose(0, 3, 1, 2))).numpy())


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(*sys.argv[2:])
    else:
        answer(*sys.argv[1:])

"""Writes tests/golden/attributions.npz: what captum says of a small CNN and a small MLP.

    .venv-peers/bin/python bench/goldens/attributions.py

Needs captum and torch. Layer-wise relevance propagation with the epsilon rule (two sizes) and with
alpha 1, beta 0; Grad-CAM, guided backpropagation and their product. Images are NCHW.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import LRP, GuidedBackprop, GuidedGradCam, LayerGradCam
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from torch import nn

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "attributions.npz"
LAYERS = (nn.Conv2d, nn.Linear)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.fc1 = nn.Linear(8 * 9, 10)
        self.fc2 = nn.Linear(10, 5)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        return self.fc2(self.relu3(self.fc1(x.flatten(1))))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 20), nn.Linear(20, 9), nn.Linear(9, 4)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.fc1(x))
        return self.fc3(self.relu2(self.fc2(x)))


def relevance(model: nn.Module, x: torch.Tensor, target: torch.Tensor, rule: Any) -> np.ndarray:
    for module in model.modules():
        if isinstance(module, (*LAYERS, nn.MaxPool2d)):
            module.rule = rule() if isinstance(module, LAYERS) else EpsilonRule()  # type: ignore
    return LRP(model).attribute(x.clone(), target=target).detach().numpy()


RULES = {
    "epsilon": EpsilonRule,
    "epsilon_0.25": lambda: EpsilonRule(epsilon=0.25),
    "z_plus": lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True),
}


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for name, model, shape in (("cnn", Cnn(), (4, 3, 12, 12)), ("mlp", Mlp(), (6, 12))):
        generator = torch.Generator().manual_seed(len(name) + shape[0])
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.1 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5
            parameter.data = scale * noise
        x = torch.rand(shape, generator=generator)  # not negative: what captum's z+ is for
        logits = model(x)
        target = logits.argmax(1)
        arrays |= {f"{name}/{key}": p.detach().numpy() for key, p in model.named_parameters()}
        arrays |= {
            f"{name}/x": x.numpy(),
            f"{name}/target": target.numpy(),
            f"{name}/logits": logits.detach().numpy(),
        }
        for rule_name, rule in RULES.items():
            arrays[f"{name}/lrp/{rule_name}"] = relevance(model, x, target, rule)
        if isinstance(model, Cnn):
            cam = LayerGradCam(model, model.relu2).attribute(x, target, relu_attributions=True)
            guided = GuidedBackprop(model).attribute(x, target)
            both = GuidedGradCam(model, model.relu2).attribute(
                x, target, interpolate_mode="bilinear"
            )
            for key, found in (("cam", cam), ("guided", guided), ("guided_cam", both)):
                arrays[f"{name}/{key}"] = found.detach().numpy()  # type: ignore
    versions = [f"{p} {importlib.metadata.version(p)}" for p in ("captum", "torch")]
    arrays["versions"] = np.array(versions)
    np.savez_compressed(OUT, allow_pickle=False, **arrays)
    print(f"{OUT}: {len(arrays)} arrays, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Files of torch.save, good and hostile, and what torch's own load with weights_only makes of them.

    .venv-peers/bin/python bench/goldens/weights_torch.py

To tests/golden/weights/torch: the files; ``expected.npz`` with the bytes of every tensor of the
good ones as ``file/name``; and ``verdicts.json``: shapes and dtypes of those, and for the others
what torch says. No file is ever loaded with weights_only=False.
"""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "torch"
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
)


def dtypes():
    found = {}
    for name in DTYPES:
        raw = torch.randint(0, 2 if name == "bool" else 100, (96,), dtype=torch.uint8)
        values = raw.view(getattr(torch, name))
        found[name] = values[: 4 * (len(values) // 4)].reshape(2, -1)
    return found


def views():
    base = torch.randn(6, 5)
    return OrderedDict(
        whole=base,
        again=base,
        transposed=base.T,
        column=base[:, 2],
        steps=base[1::2, ::3],
        part=base[2:4],
        expanded=base[0].expand(3, 5),
        windows=torch.as_strided(base, (4, 5), (3, 1), 2),
        image=torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        number=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base[1]),
    )


def network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def main():
    torch.manual_seed(0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    parallel = {f"module.{k}": v for k, v in model.state_dict().items()}
    beside = {"epoch": 3, "best": 0.5, "optimizer": optimizer.state_dict(), "arch": "x"}
    good = {
        "dtypes": (dtypes(), {}, ""),
        "views": (views(), {}, ""),
        "views_old": (views(), {"_use_new_zipfile_serialization": False}, ""),
        "network": (model.state_dict(), {}, ""),
        "network_old": (model.state_dict(), {"_use_new_zipfile_serialization": False}, ""),
        "state_dict": ({"state_dict": parallel, **beside}, {}, "state_dict"),
        "model": ({**beside, "model": model.state_dict()}, {}, "model"),
    }
    arrays, verdicts = {}, {}
    for name, (value, options, key) in good.items():
        file = FOLDER / f"{name}.pth"
        torch.save(value, file, **options)
        loaded = torch.load(file, weights_only=True)
        verdicts[name] = {}
        for tensor, x in (loaded[key] if key else loaded).items():
            x = x.detach()
            verdicts[name][tensor] = [str(x.dtype).removeprefix("torch."), list(x.shape)]
            flat = x.contiguous().reshape(-1)
            raw = flat.view(torch.uint8) if flat.numel() else flat.to(torch.uint8)
            arrays[f"{name}/{tensor}"] = raw.numpy()
    scale = torch.tensor(0.1)
    hostile = {
        "whole_model": model,
        "namespace": {"state_dict": model.state_dict(), "args": argparse.Namespace(lr=0.1)},
        "numpy_number": {"state_dict": model.state_dict(), "best": np.float64(0.5)},
        "conjugated": {"x": torch.randn(3, dtype=torch.complex64).conj()},
        "negated": {"x": torch.randn(3, dtype=torch.complex64).conj().imag},
        "sparse": {"x": torch.eye(3).to_sparse()},
        "quantised": {"x": torch.quantize_per_tensor(torch.randn(3), scale, 0, torch.qint8)},
        "meta": {"x": torch.zeros(3, device="meta")},
        "a_tensor": torch.randn(3),
        "averages": {"state_dict": model.state_dict(), "state_dict_ema": model.state_dict()},
    }
    for name, value in hostile.items():
        torch.save(value, FOLDER / f"{name}.pth")
    torch.save(model.state_dict(), FOLDER / "protocol4.pth", pickle_protocol=4)
    torch.jit.script(torch.nn.Linear(2, 2)).save(FOLDER / "program.pth")
    for name in (*hostile, "program", "protocol4"):
        try:
            torch.load(FOLDER / f"{name}.pth", weights_only=True)
            verdicts[name] = "loaded"
        except Exception as error:
            verdicts[name] = f"refused: {type(error).__name__}"
    np.savez_compressed(FOLDER / "expected.npz", **arrays)
    (FOLDER / "verdicts.json").write_text(json.dumps(verdicts, indent=1) + "\n")
    for file in FOLDER.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()

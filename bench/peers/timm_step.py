"""A timm model's train step on torch, driven line by line from ``bench/compare.py``.

    python bench/peers/timm_step.py MODEL BATCH SIZE MODE THREADS CLOCK

MODE is ``eager``, ``channels_last`` or ``compile`` (``torch.compile``, defaults); THREADS how many
torch uses; CLOCK ``wall`` or ``cpu``. Forward, cross-entropy, backward, clipping to norm 1 and
AdamW (0.9, 0.999, decay 0.05) in float32 on the same random batch. The first line it prints is a
JSON object, with the key ``failed`` where the model does not run; then each line ``N`` on
standard input runs N steps and answers with the seconds, and ``profile N`` with the milliseconds
that a step spends in each part that ``bench/step_profile.py`` names.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch


def timm_without_operators():
    """timm; where torchvision has no compiled operators beside it, their names are declared."""
    for name, arguments in (
        ("nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + arguments)
    import timm

    return timm


def profile(step: Callable[[], float], steps: int) -> dict[str, float]:
    """Milliseconds of a step by the kind of the operation itself, its callees left out."""
    found = {"forward": 0.0, "backward": 0.0, "other": 0.0}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as trace:
        for _ in range(steps):
            step()
    # A product in the forward pass and in the backward pass has one name; its parent differs.
    for event in trace.events() or ():
        product = any(
            word in event.name for word in ("conv", "addmm", "aten::mm", "bmm", "attention")
        )
        parents, parent = [], event.cpu_parent
        while parent is not None:
            parents.append(parent.name)
            parent = parent.cpu_parent
        backward = any("Backward" in name or "backward" in name for name in (event.name, *parents))
        kind = ("backward" if backward else "forward") if product else "other"
        found[kind] += event.self_cpu_time_total / 1e3 / steps
    return found


library = torch.library.Library("torchvision", "FRAGMENT")


def main() -> None:
    name, mode, clock_name = sys.argv[1], sys.argv[4], sys.argv[6]
    batch, size, threads = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[5])
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    timm = timm_without_operators()
    model = timm.create_model(name, pretrained=False, num_classes=1000).train()
    image = torch.randn(batch, 3, size, size)
    label = torch.randint(0, 1000, (batch,))
    if mode == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05)
    forward = torch.compile(model) if mode == "compile" else model

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(forward(image), label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    start = time.perf_counter()
    try:
        step()
    except Exception as error:
        print(json.dumps({"failed": str(error).splitlines()[0]}), file=answers, flush=True)
        return
    first = {
        "params": sum(p.numel() for p in parameters),
        "first_step_s": round(time.perf_counter() - start, 1),
        "versions": f"timm {timm.__version__}, torch {torch.__version__}",
    }
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        if line.startswith("profile"):
            print(json.dumps(profile(step, int(line.split()[1]))), file=answers, flush=True)
            continue
        start = clock()
        for _ in range(int(line)):
            step()
        print(clock() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()

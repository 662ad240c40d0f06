"""A train step of timm or open_clip on a GPU, driven line by line from ``bench/gpu.py``.

    python bench/peers/gpu_step.py MODEL BATCH SIZE CONTEXT

With CONTEXT 0 MODEL is timm's and learns labels, else open_clip's and learns pairs with texts of so
many tokens. ``torch.compile``, bfloat16 autocast, fused AdamW, clipping to norm 1. The first line
that it prints is a JSON object, with the key ``failed`` where the model does not run; then each
line ``N`` on standard input runs N steps and answers with the seconds.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    name = sys.argv[1]
    batch, size, context = map(int, sys.argv[2:5])
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print while they are imported
    try:
        import torch

        torch.manual_seed(0)
        torch.backends.cuda.matmul.allow_tf32 = True
        device = torch.device("cuda")
        image = torch.randn(batch, 3, size, size, device=device)
        if context:
            import open_clip

            version = f"open_clip {open_clip.__version__}"
            model = open_clip.create_model(name).to(device).train()
            loss_of_pairs = open_clip.ClipLoss()
            text = torch.randint(1, 20, (batch, context), device=device)
        else:
            import timm

            version = f"timm {timm.__version__}"
            model = timm.create_model(name, num_classes=1000).to(device).train()
            label = torch.randint(0, 1000, (batch,), device=device)
        convolutional = name.startswith("resnet")
        if convolutional:
            model = model.to(memory_format=torch.channels_last)
            image = image.to(memory_format=torch.channels_last)
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05, fused=True)
        forward = torch.compile(model)

        def step() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                if context:
                    loss = loss_of_pairs(*forward(image, text)[:3])
                else:
                    loss = torch.nn.functional.cross_entropy(forward(image), label)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            return loss

        start = time.perf_counter()
        for _ in range(3):
            step().item()
    except Exception as error:
        print(json.dumps({"failed": str(error).splitlines()[0]}), file=answers, flush=True)
        return
    first = {
        "params": sum(p.numel() for p in parameters),
        "compile_s": round(time.perf_counter() - start, 1),
        "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "versions": f"{version}, torch {torch.__version__}",
    }
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            loss = step()
        loss.item()
        print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Writes tests/golden/retrieval/metrics.npz: torchmetrics on random rankings, and the recalls of
CLIP-benchmark and open_clip as their sources define them.

    .venv-peers/bin/python bench/goldens/retrieval_metrics.py

Needs torch and torchmetrics. CLIP-benchmark (``recall_at_k`` of metrics/zeroshot_retrieval.py) and
open_clip (``get_clip_metrics`` of its training code) do not export these few lines: they are
written here with the same torch calls, topk and argsort.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import torch

# torchmetrics imports torchvision where it finds it, whose compiled operators are for other builds.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchmetrics import retrieval  # noqa: E402
from torchmetrics.functional import retrieval as functional  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "retrieval" / "metrics.npz"
KS = (1, 5, 10)
CASES = ((9, 40, 0.1), (25, 300, 0.02), (4, 12, 0.7), (30, 60, 0.05))
PAIRED = ((32, 1), (40, 5), (6, 3))


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def numbers(scores: torch.Tensor, relevant: torch.Tensor) -> dict[str, np.ndarray]:
    """Every metric of torchmetrics, per query, and its mean without queries that have no match."""
    index = torch.arange(len(scores))[:, None].expand_as(scores)
    queries = [i for i in range(len(scores)) if relevant[i].any()]
    single = {
        "average_precision": lambda s, r: functional.retrieval_average_precision(s, r),
        "ndcg": lambda s, r: functional.retrieval_normalized_dcg(s, r),
        "r_precision": lambda s, r: functional.retrieval_r_precision(s, r),
        "reciprocal_rank": lambda s, r: functional.retrieval_reciprocal_rank(s, r),
    }
    together = {
        "average_precision": retrieval.RetrievalMAP(empty_target_action="skip"),
        "ndcg": retrieval.RetrievalNormalizedDCG(empty_target_action="skip"),
        "r_precision": retrieval.RetrievalRPrecision(empty_target_action="skip"),
        "reciprocal_rank": retrieval.RetrievalMRR(empty_target_action="skip"),
    }
    for k in KS:
        single[f"recall@{k}"] = lambda s, r, k=k: functional.retrieval_recall(s, r, top_k=k)
        single[f"hit@{k}"] = lambda s, r, k=k: functional.retrieval_hit_rate(s, r, top_k=k)
        single[f"precision@{k}"] = lambda s, r, k=k: functional.retrieval_precision(s, r, top_k=k)
        single[f"ndcg@{k}"] = lambda s, r, k=k: functional.retrieval_normalized_dcg(s, r, top_k=k)
        together[f"recall@{k}"] = retrieval.RetrievalRecall(empty_target_action="skip", top_k=k)
        together[f"precision@{k}"] = retrieval.RetrievalPrecision(
            empty_target_action="skip", top_k=k
        )
    found: dict[str, np.ndarray] = {}
    for name, function in single.items():
        values = np.full(len(scores), np.nan)
        for i in queries:
            values[i] = float(function(scores[i], relevant[i]))
        found[name] = values
    for name, metric in together.items():
        value = metric(scores.flatten(), relevant.flatten(), indexes=index.flatten())
        found[f"mean/{name}"] = np.asarray(float(value))
    return found


def clip_benchmark(scores: torch.Tensor, positive: torch.Tensor, k: int) -> torch.Tensor:
    """(Q,) whether any positive is in the top k, from ``scores`` and ``positive`` (Q, N)."""
    top = torch.topk(scores, min(k, scores.shape[1]), dim=1)[1]
    return (positive.gather(1, top).sum(1) > 0).float()


def open_clip(scores: torch.Tensor) -> dict[str, float]:
    """Of a square matrix whose diagonal is right."""
    truth = torch.arange(len(scores)).view(-1, 1)
    ranking = torch.argsort(scores, descending=True)
    preds = torch.where(ranking == truth)[1].numpy()
    found = {"mean_rank": preds.mean() + 1, "median_rank": np.floor(np.median(preds)) + 1}
    return found | {f"R@{k}": np.mean(preds < k) for k in KS}


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for number, (queries, items, share) in enumerate(CASES):
        generator = torch.Generator().manual_seed(number)
        left = unit(torch.randn(queries, 16, generator=generator))
        right = unit(torch.randn(items, 16, generator=generator))
        relevant = torch.rand(queries, items, generator=generator) < share
        relevant[0] = False
        key = f"torchmetrics/{number}"
        arrays |= {f"{key}/queries": left.numpy(), f"{key}/gallery": right.numpy()}
        arrays[f"{key}/relevant"] = relevant.numpy()
        # torchmetrics takes an item whose score is not positive for irrelevant: no cosine is, here.
        for name, values in numbers((left @ right.T).double() + 2, relevant).items():
            arrays[f"{key}/{name}"] = values
    for images, captions in PAIRED:
        generator = torch.Generator().manual_seed(images)
        image = torch.randn(images, 1, 24, generator=generator)
        text = 0.3 * image + torch.randn(images, captions, 24, generator=generator)
        image, text = unit(image[:, 0]), unit(text)
        key = f"paired/{images}x{captions}"
        arrays |= {f"{key}/image": image.numpy(), f"{key}/text": text.numpy()}
        flat = text.reshape(images * captions, -1)
        owner = torch.arange(images).repeat_interleave(captions)
        positive = owner[:, None] == torch.arange(images)
        for k in KS:
            arrays[f"{key}/text_to_image_r{k}"] = (
                clip_benchmark(flat @ image.T, positive, k).mean().numpy()
            )
            arrays[f"{key}/image_to_text_r{k}"] = (
                clip_benchmark(image @ flat.T, positive.T, k).mean().numpy()
            )
        if captions == 1:
            for way, scores in (
                ("image_to_text", image @ flat.T),
                ("text_to_image", flat @ image.T),
            ):
                for name, value in open_clip(scores).items():
                    arrays[f"{key}/open_clip/{way}/{name}"] = np.asarray(float(value))
    names = ("torchmetrics", "torch")
    arrays["versions"] = np.array([f"{p} {importlib.metadata.version(p)}" for p in names])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT, allow_pickle=False, **arrays)
    print(f"{OUT}: {len(arrays)} arrays, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

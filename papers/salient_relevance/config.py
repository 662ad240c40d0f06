"""Relevance maps and their saliency for VGG-16 on ImageNet.

    python train.py --config=papers/salient_relevance/config.py:BOXES --workdir=W
    python evaluate.py --workdir=W

Li et al., Beyond Saliency, 2019. BOXES is a folder of parquet files; see
`configs/parts/localised.py`. The paper starts from trained weights: set `init_from`.

`small` is a CNN on scenes of 32 pixels; half a minute.
"""

import vision as v
from configs.parts import localised
from papers.salient_relevance.method import Relevance, SalientRelevance
from vision import spec


def get_config(boxes: str = "ilsvrc_boxes") -> v.Config:
    return localised.large(boxes, {"relevance": spec(Relevance), "salient": spec(SalientRelevance)})


def small() -> v.Config:
    maps = {"relevance": spec(Relevance), "salient": spec(SalientRelevance, side_px=24)}
    return localised.small(maps, examples=100)

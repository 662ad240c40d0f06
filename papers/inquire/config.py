"""A dual encoder to be evaluated on the expert queries of INQUIRE.

    python train.py --config=papers/inquire/config.py:'/data/laion/train-*.parquet' ...
    python train.py --config=papers/inquire/config.py:small --workdir=...

INQUIRE: A Natural World Text-to-Image Retrieval Benchmark, 2024, trains nothing: it asks published
models for the images of 250 sentences among five million photographs. Here is one of those models,
CLIP ViT-B/16, in its own recipe (`configs/clip_vit_b16.py`); queries and galleries go to
`full_rank` of `papers.inquire.method`, as vectors of the trained towers. `small`
learns from two things in a scene, of which captions tell a part.
"""

import vision as v
from configs import clip_vit_b16
from configs.parts import small_pairs


def get_config(paths: str = "pairs/*.parquet") -> v.Config:
    return clip_vit_b16.get_config(paths)


def small() -> v.Config:
    two, long = {"num_objects": (2, 2)}, {"caption": "caption_long"}
    tokens = small_pairs.tokenizer(length=44)
    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.3, world=two, **long),
        small_pairs.transformer(tokens),
        steps=400,
        evaluators={"retrieval": small_pairs.retrieval(tokens, world=two, **long)},
    )

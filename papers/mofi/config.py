"""Entity classification over two million entities of alt-texts, with a contrastive loss (MOFI).

    python train.py --config=papers/mofi/config.py --workdir=...
    python train.py --config=papers/mofi/config.py:small --workdir=...

MOFI: Learning Image Representations from Noisy Entity Annotated Images, 2023, ViT-B/16, multi-task.
`data/i2e-*.parquet` has the columns `image` and `label`, the number of an entity, and
`data/entities.json` maps the entities' names, in that order, to lists of descriptions, perhaps
empty: what the paper makes of 1.1 billion pairs beforehand. The classifier is split over devices.
Batch, learning rate, number of sampled entities and length are not confirmed; these are ours.

`small`: thirty entities, a colour and a shape each; three captions in ten name a wrong one, and
nothing filters them.
"""

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data, train_data
from configs.parts.small_pairs import WIDTH, experiment, tokenizer, transformer
from papers.mofi.entities import Gazetteer, Link
from papers.mofi.method import EntityTasks
from vision import ops, spec

SHAPES = ("circle", "triangle", "square", "star", "cross")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
ENTITIES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
DESCRIPTIONS = tuple(
    (f"the {colour} thing with the shape of a {shape}",) for shape in SHAPES for colour in COLOURS
)
COUNT = 2_000_000


def scenes(split, num_examples, features, **more):
    """Scenes of one large thing, any of the entities."""
    world = {"label": "shape_colour", "num_objects": (1, 1), "shapes": SHAPES, "colours": COLOURS}
    large = {"sizes": ("large",), "rotation_deg": 0.0, "view_zoom": (1.3, 1.3)}
    return small_pairs.scenes(split, num_examples, features, **world, **large, **more)


def noisy():
    """Training scenes whose captions name a wrong entity three times in ten."""
    features = ("image", "caption", "label")
    noise = {"caption_noise": 0.3, "caption_noise_kind": "other"}
    return scenes("train", 6000, features, **noise)


def small() -> v.Config:
    return of_entities(noisy())


def of_entities(source, link=True, **tasks):
    """The small config: of `source`, whose labels `link` takes from captions, by the rest of the
    arguments of `EntityTasks`."""
    tokens = tokenizer(length=16)
    linked = [spec(Link, linker=spec(Gazetteer, names=ENTITIES))] if link else []
    say = spec(
        ops.LabelToCaption,
        names=ENTITIES,
        templates=("{}",),
        descriptions=DESCRIPTIONS,
        described=0.5,
    )
    sizes = {"num_entities": len(ENTITIES), "width": WIDTH}
    return experiment(
        train_data(source, 64, ops=[*linked, say, spec(ops.Tokenize, tokenizer=tokens)]),
        transformer(tokens),
        steps=120,
        evaluators={
            "zero_shot": spec(
                v.ZeroShot,
                data=eval_data(scenes("test", 600, ("image", "label")), 200),
                tokenizer=tokens,
                templates=("{}",),
            )
        },
        objective=spec(EntityTasks, **sizes, **tasks),
    )


def get_config(paths: str = "data") -> v.Config:
    tokenizer = pairs.clip_tokenizer()
    half_the_time = spec(
        ops.LabelToCaption, file=f"{paths}/entities.json", templates=("{}",), described=0.5
    )
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(
                v.Parquet, path=f"{paths}/i2e-*.parquet", columns={"label": spec(v.ClassLabel)}
            ),
            batch_size=32_768,
            ops=[
                spec(ops.Decode),
                spec(ops.ToRgb),
                spec(ops.RandomResizedCrop, size=224, scale=(0.9, 1.0)),
                spec(ops.ValueRange, low=-1, high=1),
                half_the_time,
                spec(ops.Tokenize, tokenizer=tokenizer),
            ],
            on_error="mask",
            threads=16,
            prefetch_batches=16,
        ),
        model=pairs.towers("cls", width=512, text={"activation": "quick_gelu"}),
        objective=spec(EntityTasks, num_entities=COUNT, sampled=65_536),
        optimizer=pairs.long_warmup(weight_decay=0.1),
        sharding=[spec(v.ShardingRule, pattern="entities/classes", layout=("fsdp", None))],
        total="600_000 steps",
    )

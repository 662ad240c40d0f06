"""Training on stored tokens: a tokenizer, a file of ids, masked token modelling, fine-tuning.

    python train.py --config=papers/seit_plus_plus/config.py --workdir=workdirs/seit
    python evaluate.py --workdir=workdirs/seit/finetune

Lee et al., SeiT++: Masked Token Modeling Improves Storage-efficient Training, 2024: ImageNet-1k at
224 pixels as 28 x 28 ids of 391 entries, a ViT-B over pairs of two by two, pre-trained for 400
epochs and fine-tuned for 100. The paper's tokenizer is a trained ViT-VQGAN; ours is convolutional
and trained here, by squared errors alone.

``small`` is scenes of 32 pixels, 8 x 8 ids of 64 entries, and what they are compared with: the same
fine-tuning without pre-training, a ViT of all labels on tokens, and one on pixels.
"""

import vision as v
from configs.parts.small import eval_data, train_data
from configs.parts.small_pairs import COLOURS, scenes
from papers.seit_plus_plus.codes import FromCodes
from papers.seit_plus_plus.color_adapt import ColorAdapt
from papers.seit_plus_plus.masked_decoder import MaskedDecoder
from papers.seit_plus_plus.method import MaskedTokens
from papers.seit_plus_plus.tokenize_images import Tokenised
from vision import ops, spec

CODEBOOK = "stage:train_tokens/codebook.npy"


def get_config() -> v.Config:
    shape = [spec(ops.Decode), spec(ops.Resize, size=256), spec(ops.CenterCrop, size=224)]
    values, dim, grid = [spec(ops.ValueRange, low=-1, high=1)], 32, 28

    def read(split):
        source = spec(v.Tfds, name="imagenet2012", split=split)
        return spec(v.EvalData, source=source, batch_size=256, ops=[*shape, *values])

    tokenizer = run(
        spec(
            v.TrainData,
            source=spec(v.Tfds, name="imagenet2012", split="train"),
            batch_size=256,
            ops=[*shape, spec(ops.RandomFlip), *values],
            threads=16,
        ),
        spec(v.VqAutoencoder, patch=8, width=512, depth=4, codes=391, code_dim=dim),
        spec(v.Quantise),
        "20 epochs",
        3e-4,
    )
    model = spec(v.ViT, variant="B/2", num_classes=1000)
    decoder = spec(MaskedDecoder, outputs=4 * dim, size=196, width=512, depth=4, heads=8)
    return stages(
        tokenizer,
        {"train": read("train"), "test": read("validation")},
        pretrain=run(
            tokens("train", grid, 4096, threads=16),
            model,
            spec(MaskedTokens, decoder=decoder, codebook=CODEBOOK),
            "400 epochs",
            1.5e-4 * 4096 / 256,
            warmup="40 epochs",
            clip_norm=3.0,
        ),
        finetune=tuned(
            tokens("train", grid, 1024, threads=16),
            model,
            held(grid),
            "100 epochs",
            1e-3,
            warmup="5 epochs",
            layer_decay=0.65,
        ),
    )


def small() -> v.Config:
    grid, dim, steps = 8, 16, "200 steps"
    names = {"image_size": 32, "num_objects": (1, 1), "label": "colour"}
    world = {
        "train": scenes("train", 2000, ("image", "label"), **names),
        "test": scenes("test", 500, ("image", "label"), **names),
    }
    read = {name: eval_data(source, 500, threads=1) for name, source in world.items()}

    def pixels(batch_size):
        return train_data(world["train"], batch_size)

    sizes = {"width": 48, "depth": 2, "heads": 4, "pool": "mean", "num_classes": len(COLOURS)}
    model = spec(v.ViT, patch=2, **sizes)
    decoder = spec(MaskedDecoder, outputs=4 * dim, size=16, width=32, depth=1, heads=4)
    few = {"num_labels": 0.1, "names": COLOURS}
    return stages(
        run(
            pixels(32),
            spec(v.VqAutoencoder, patch=4, width=48, depth=1, codes=64, code_dim=dim),
            spec(v.Quantise),
            "200 steps",
            2e-3,
        ),
        read,
        pretrain=run(
            tokens("train", grid, 64),
            model,
            spec(MaskedTokens, decoder=decoder, codebook=CODEBOOK),
            "300 steps",
            2e-3,
            clip_norm=3.0,
        ),
        finetune=tuned(tokens("train", grid, 64, **few), model, held(grid, COLOURS), steps, 2e-3),
        scratch=run(
            tokens("train", grid, 64, adapted=True, **few),
            model,
            spec(v.Classify),
            steps,
            2e-3,
            evaluators=held(grid, COLOURS),
        ),
        full=run(
            tokens("train", grid, 64, adapted=True, names=COLOURS),
            model,
            spec(v.Classify),
            steps,
            2e-3,
            evaluators=held(grid, COLOURS),
        ),
        pixels=run(
            pixels(64),
            spec(v.ViT, patch=8, **sizes),
            spec(v.Classify),
            steps,
            2e-3,
            evaluators={"test": spec(v.Classification, data=read["test"])},
        ),
    )


def stages(tokenizer, read, **runs):
    jobs = {
        f"{name}_tokens": spec(Tokenised, run_of="stage:tokenizer", data=data)
        for name, data in read.items()
    }
    every = {"tokenizer": tokenizer, **jobs, **runs}
    return spec(v.Scenario, stages=[spec(v.Stage, name=name, do=do) for name, do in every.items()])


def stored(part, names=()):
    return spec(v.Npz, path=f"stage:{part}_tokens/tokens.npz", class_names=names)


def unpacked(grid):
    return [spec(FromCodes, codebook=CODEBOOK, height=grid, width=grid)]


def tokens(part, grid, batch_size, adapted=False, num_labels=1.0, names=(), threads=0):
    source = stored(part, names)
    if num_labels < 1:
        parts = (("some", num_labels), ("rest", 1 - num_labels))
        source = spec(v.Split, source=source, part="some", parts=parts)
    return spec(
        v.TrainData,
        source=source,
        batch_size=batch_size,
        ops=unpacked(grid),
        batch_ops=[spec(ColorAdapt)] if adapted else [],
        threads=threads,
    )


def held(grid, names=()):
    data = spec(
        v.EvalData, source=stored("test", names), batch_size=500, ops=unpacked(grid), threads=0
    )
    # The vectors of a grid are no picture.
    return {"test": spec(v.Classification, data=data, mistakes=0)}


def tuned(data, model, evaluators, total, learning_rate, **more):
    """Fine-tuning from the masked run, its images' colours adapted."""
    data.batch_ops = [spec(ColorAdapt)]
    experiment = run(
        data, model, spec(v.Classify), total, learning_rate, evaluators=evaluators, **more
    )
    experiment.init_from = spec(v.InitFrom, source="workdir:stage:pretrain", head="new")
    return experiment


def run(
    data,
    model,
    objective,
    total,
    learning_rate,
    warmup="20 steps",
    clip_norm=1.0,
    layer_decay=1.0,
    evaluators=None,
):
    return spec(
        v.Experiment,
        data=data,
        model=model,
        objective=objective,
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98),
            learning_rate=learning_rate,
            schedule=spec(v.Cosine, warmup=warmup),
            weight_decay=0.05,
            clip_norm=clip_norm,
            layer_decay=layer_decay,
        ),
        total=total,
        evaluators=evaluators,
        log_every="50 steps",
    )

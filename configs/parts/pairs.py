"""What the configs of large dual encoders have in common: pairs, towers, a recipe."""

from vision.config.specs import spec
from vision.data import ops
from vision.data.descriptions import Captions
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.parquet import Parquet
from vision.data.sources.webdataset import WebDataset
from vision.data.tokenizers import ClipTokenizer
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.contrast import Contrast
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, adamw
from vision.train.precision import Precision
from vision.train.schedule import Cosine
from vision.weights.init_from import InitFrom

PAIRS = "data/pairs/*.parquet"


def clip_tokenizer(length=77):
    return spec(ClipTokenizer, length=length)


def source(paths):
    """WebDataset shards (`.tar`, caption in `.txt`) or Parquet files (columns image, caption)."""
    if paths.endswith(".tar"):
        return spec(WebDataset, shards=paths, columns={"caption": spec(Captions, column="txt")})
    return spec(Parquet, path=paths, columns={"caption": spec(Captions)})


def train(paths, tokenizer, batch_size, size=224):
    """A random square crop and nothing else; records without a picture or a text are masked."""
    return spec(
        TrainData,
        source=source(paths),
        batch_size=batch_size,
        ops=[
            spec(ops.Decode),
            spec(ops.ToRgb),
            spec(ops.RandomResizedCrop, size=size, scale=(0.9, 1.0)),
            spec(ops.ValueRange, low=-1, high=1),
            spec(ops.Tokenize, tokenizer=tokenizer),
        ],
        on_error="mask",
        threads=16,
        prefetch_batches=16,
    )


def towers(pool, width, text, **joint):
    """ViT-B/16 and a transformer over the ids of CLIP's tokenizer, computing in bfloat16."""
    half = spec(Precision, compute="bfloat16")
    return spec(
        Dual,
        image=spec(ViT, variant="B/16", pool=pool, precision=half),
        text=spec(TextTransformer, vocab_size=ClipTokenizer().vocab_size, precision=half, **text),
        width=width,
        **joint,
    )


def asked(source):
    """Images at 224 pixels that a dual encoder is asked about; those that are none are masked."""
    values = [
        spec(ops.Decode),
        spec(ops.ToRgb),
        spec(ops.Resize, size=224),
        spec(ops.CenterCrop, size=224),
        spec(ops.ValueRange, low=-1, high=1),
    ]
    return spec(EvalData, source=source, batch_size=256, ops=values, on_error="mask")


def trained(tokenizer, evaluators):
    """A run of `configs/clip_vit_b16.py` to be evaluated; trained further, it would learn from
    `PAIRS`."""
    return spec(
        Experiment,
        data=train(PAIRS, tokenizer, batch_size=1024),
        model=towers("cls", width=512, text={"activation": "quick_gelu"}),
        init_from=spec(InitFrom, source="workdir:workdirs/clip_vit_b16"),
        objective=spec(Contrast),
        optimizer=spec(Optimizer, method=spec(adamw, b2=0.98), learning_rate=1e-5),
        total="1 epochs",
        evaluators=evaluators,
    )


def long_warmup(weight_decay, **more):
    """AdamW as LiT and SigLIP have it."""
    return spec(
        Optimizer,
        method=spec(adamw, b2=0.95),
        learning_rate=1e-3,
        schedule=spec(Cosine, warmup="10_000 steps"),
        weight_decay=weight_decay,
        clip_norm=1.0,
        **more,
    )

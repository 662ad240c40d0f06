"""Image-text pairs for the dual encoders' configs."""

from vision.core.config import spec
from vision.data import ops
from vision.data.descriptions import Captions
from vision.data.pipeline import TrainData
from vision.data.sources.parquet import Parquet
from vision.data.sources.webdataset import WebDataset
from vision.data.tokenizers import ClipTokenizer

CLIP_VOCABULARY = ClipTokenizer().vocab_size


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

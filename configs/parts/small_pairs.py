"""What `small` of the image-text configs has in common: scenes of 24 pixels and two narrow towers.

Scenes are drawn on the fly; a run is a minute or two on two cores.
"""

from configs.parts.small import train_data
from vision.config.specs import spec
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.scenes import Scenes, translate
from vision.data.sources.scenes.languages import lexicon
from vision.data.tokenizers import WordTokenizer
from vision.evaluators.image_text.retrieval import ImageTextRetrieval
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.contrast import Contrast
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import Cosine

SHAPES = ("circle", "triangle", "square", "star", "cross", "crescent", "flower", "arrow")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SIZES = ("small", "medium", "large")
WIDTH = 48


def words(languages=(0,)):
    """Every word of captions in some languages; 0 is English."""
    translated = (translate(word, language) for language in languages for word in lexicon())
    return tuple(dict.fromkeys(translated))


def tokenizer(length=20, languages=(0,)):
    return spec(WordTokenizer, words=words(languages), length=length)


def scenes(split, num_examples, features, **more):
    plain = {
        "num_objects": (1, 2),
        "image_size": 24,
        "shapes": SHAPES,
        "colours": COLOURS,
        "sizes": SIZES,
        "backgrounds": ("paper", "stone", "night"),
        "variants": ("solid",),
        "textures": ("plain",),
    }
    fields = {"split": split, "num_examples": num_examples, "features": features}
    return spec(Scenes, **(plain | fields | more))


def train(tokens, caption="caption_medium", least_told=1.0, say=(), world=None, read=None):
    """Pairs of an image and a caption that tells a random share of what it could.

    `say` are ops on the text, between; `read` replaces the op that makes tokens.
    """
    shorten = [spec(ops.ShortenCaption, feature=caption, output=caption, share=(least_told, 1.0))]
    source = scenes("train", 8000, ("image", caption), **(world or {}))
    return train_data(
        source,
        64,
        ops=[
            *(shorten if least_told < 1 else ()),
            *say,
            read or spec(ops.Tokenize, tokenizer=tokens, feature=caption),
        ],
    )


def unseen(tokens, caption="caption_medium", examples=256, say=(), world=None):
    return spec(
        EvalData,
        source=scenes("test", examples, ("image", caption), **(world or {})),
        batch_size=256,
        ops=[
            *say,
            spec(ops.ValueRange, low=-1, high=1),
            spec(ops.Tokenize, tokenizer=tokens, feature=caption),
        ],
    )


def retrieval(tokens, **data):
    return spec(ImageTextRetrieval, data=unseen(tokens, **data), tokenizer=tokens)


def transformer(tokens, **more):
    vocab_size = more.pop("vocab_size", 4 + len(tokens.words))
    sizes = {"width": WIDTH, "depth": 1, "heads": 4, "context": tokens.length}
    return spec(TextTransformer, vocab_size=vocab_size, **sizes, **more)


def experiment(data, text, steps, evaluators, objective=None, patch=6, **model):
    return spec(
        Experiment,
        data=data,
        model=spec(
            Dual,
            image=spec(ViT, width=WIDTH, depth=2, heads=4, patch=patch, pool="mean"),
            text=text,
            width=WIDTH,
            **model,
        ),
        objective=objective or spec(Contrast, duplicates="ignore"),
        optimizer=spec(
            Optimizer,
            method=spec(adamw, b2=0.98),
            learning_rate=3e-3,
            schedule=spec(Cosine, warmup="20 steps"),
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        total=f"{steps} steps",
        evaluators=evaluators,
        log_every="50 steps",
    )

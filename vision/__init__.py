"""Image-classification research in JAX and Flax: what configs and notebooks need, by short names.

    from vision import Classify, Experiment, ViT, ops, spec
    import vision; run = vision.load(Path("workdirs/digits_vit"))

A name is imported from where it is defined when it is first asked for, so that ``import vision``
costs nothing. Two tables say where that is, ``_NAMES`` and ``_MODULES``; editors and
type checkers read the imports above them (``tests/test_face.py`` compares). Everything else, and
whatever stands twice under one name, is imported by its whole path. Code in ``vision`` itself
imports by whole paths only.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vision.blocks.adapters import Lora as Lora
    from vision.blocks.contrast import Ranking as Ranking, Sigmoid as Sigmoid, Softmax as Softmax
    from vision.blocks.diffusion import Diffusion as Diffusion
    from vision.checkpoint.store import Checkpoints as Checkpoints
    from vision.config.specs import build as build, spec as spec
    from vision.run.experiment import Experiment as Experiment
    from vision.run.mlflow_logger import MLflow as MLflow
    from vision.run.nonfinite import Nonfinite as Nonfinite
    from vision.run.stopping import EarlyStop as EarlyStop
    from vision.run.wandb_logger import Wandb as Wandb
    from vision.parallel.mesh import Mesh as Mesh, ShardingRule as ShardingRule
    from vision.train.objective import (
        BatchCoupled as BatchCoupled,
        Objective as Objective,
        apply as apply,
        averaged as averaged,
    )
    from vision.train.optim import (
        DECAY_KERNELS as DECAY_KERNELS,
        Ema as Ema,
        Optimizer as Optimizer,
        ParameterRule as ParameterRule,
        adafactor as adafactor,
        adamw as adamw,
        lion as lion,
        muon as muon,
        sgd as sgd,
    )
    from vision.train.precision import Precision as Precision
    from vision.predict.fit import fit as fit
    from vision.predict.load import load as load
    from vision.train.schedule import (
        Constant as Constant,
        Cosine as Cosine,
        LinearDecay as LinearDecay,
        Milestones as Milestones,
        Rsqrt as Rsqrt,
        Staircase as Staircase,
        WarmupStableDecay as WarmupStableDecay,
    )
    from vision.config.modes import Config as Config
    from vision.config.schema import ConfigError as ConfigError
    from vision.data import (
        batch_ops as batch_ops,
        batch_views as batch_views,
        columns as columns,
        ops as ops,
    )
    from vision.data.class_samplers import (
        ClassBalanced as ClassBalanced,
        EpisodeSampler as EpisodeSampler,
        PxK as PxK,
    )
    from vision.data.columns import ClassLabel as ClassLabel, Number as Number
    from vision.data.descriptions import Captions as Captions
    from vision.data.mixture import Mixture as Mixture, MixturePart as MixturePart
    from vision.data.pipeline import EvalData as EvalData, TrainData as TrainData
    from vision.data.samplers import (
        InOrder as InOrder,
        Repeated as Repeated,
        Shuffle as Shuffle,
        WeightedSampler as WeightedSampler,
    )
    from vision.data.sources.array_record import ArrayRecord as ArrayRecord
    from vision.data.sources.arrays import Arrays as Arrays
    from vision.data.sources.combine import (
        Concat as Concat,
        Joined as Joined,
        Relabel as Relabel,
        Subset as Subset,
    )
    from vision.data.sources.computed import Computed as Computed
    from vision.data.sources.digits import Digits as Digits
    from vision.data.sources.emoji import Emoji as Emoji
    from vision.data.sources.fake import Fake as Fake
    from vision.data.sources.folder import Folder as Folder
    from vision.data.sources.frames import Frames as Frames
    from vision.data.sources.manifest import Manifest as Manifest
    from vision.data.sources.npz import Npz as Npz
    from vision.data.sources.parquet import Parquet as Parquet
    from vision.data.sources.scenes import Scenes as Scenes
    from vision.data.sources.splits import OfClasses as OfClasses, Split as Split
    from vision.data.sources.tfds import Tfds as Tfds
    from vision.data.sources.webdataset import WebDataset as WebDataset
    from vision.data.tokenizers import (
        ClipTokenizer as ClipTokenizer,
        HuggingFaceTokenizer as HuggingFaceTokenizer,
        SentencePieceTokenizer as SentencePieceTokenizer,
        WordTokenizer as WordTokenizer,
    )
    from vision.evaluators.robustness.adversarial import Adversarial as Adversarial
    from vision.evaluators.attribution import Attribution as Attribution
    from vision.evaluators.accuracy.calibration import Calibration as Calibration
    from vision.evaluators.accuracy.classification import Classification as Classification
    from vision.evaluators.image_text.composed import ComposedRetrieval as ComposedRetrieval
    from vision.evaluators.robustness.corruptions import Corruptions as Corruptions
    from vision.evaluators.cost import Cost as Cost
    from vision.evaluators.features.few_shot import FewShot as FewShot
    from vision.evaluators.accuracy.annotators import AnnotatorAgreement as AnnotatorAgreement
    from vision.evaluators.accuracy.groups import (
        GroupedAccuracy as GroupedAccuracy,
        LongTail as LongTail,
    )
    from vision.evaluators.accuracy.hierarchy import Hierarchical as Hierarchical
    from vision.evaluators.features.instances import InstanceRetrieval as InstanceRetrieval
    from vision.evaluators.accuracy.label_sets import LabelSets as LabelSets
    from vision.evaluators.features.linear_heads import (
        FindingsProbe as FindingsProbe,
        PatchProbe as PatchProbe,
    )
    from vision.evaluators.accuracy.mistakes import Mistakes as Mistakes
    from vision.evaluators.robustness.odin import Odin as Odin
    from vision.evaluators.accuracy.ordinal import Ordinal as Ordinal, Regression as Regression
    from vision.evaluators.robustness.out_of_distribution import (
        OutOfDistribution as OutOfDistribution,
    )
    from vision.evaluators.image_text.pairs import (
        CaptionChoice as CaptionChoice,
        CrossedPairs as CrossedPairs,
    )
    from vision.evaluators.features.probe import (
        LinearProbe as LinearProbe,
        NearestNeighbours as NearestNeighbours,
        RidgeProbe as RidgeProbe,
        SgdProbe as SgdProbe,
    )
    from vision.evaluators.features.representation import Representation as Representation
    from vision.evaluators.image_text.retrieval import (
        ImageRetrieval as ImageRetrieval,
        ImageTextRetrieval as ImageTextRetrieval,
    )
    from vision.evaluators.robustness.severity import Severity as Severity
    from vision.evaluators.robustness.shifts import NaturalShift as NaturalShift
    from vision.evaluators.robustness.translation import Translation as Translation
    from vision.evaluators.image_text.zero_shot import (
        MultilingualZeroShot as MultilingualZeroShot,
        ZeroShot as ZeroShot,
    )
    from vision.models.autoencoder import ConvAutoencoder as ConvAutoencoder
    from vision.models.bag_of_words import BagOfWords as BagOfWords
    from vision.models.bit import BiT as BiT
    from vision.models.captioner import Captioner as Captioner
    from vision.models.convnext import ConvNeXt as ConvNeXt
    from vision.models.densenet import DenseNet as DenseNet
    from vision.models.dual import Dual as Dual
    from vision.models.efficientnet import EfficientNet as EfficientNet
    from vision.models.efficientnet_lite import EfficientNetLite as EfficientNetLite
    from vision.models.inception import InceptionV4 as InceptionV4
    from vision.models.inception_resnet import InceptionResNetV2 as InceptionResNetV2
    from vision.models.maxvit import MaxVit as MaxVit
    from vision.models.mixer import Mixer as Mixer
    from vision.models.mobilenet import (
        MobileNetV1 as MobileNetV1,
        MobileNetV2 as MobileNetV2,
        MobileNetV3 as MobileNetV3,
    )
    from vision.models.mobilenet_v4 import MobileNetV4 as MobileNetV4
    from vision.models.naflex import NaflexViT as NaflexViT
    from vision.models.nasnet import NasNet as NasNet
    from vision.models.plain_conv import PlainConv as PlainConv
    from vision.models.relative_vit import RelativeViT as RelativeViT
    from vision.models.regnet import RegNet as RegNet
    from vision.models.resnet import ResNet as ResNet
    from vision.models.resnet_v2 import ResNetV2 as ResNetV2
    from vision.models.rope import Rope as Rope
    from vision.models.swin import Swin as Swin
    from vision.models.swin_v2 import SwinV2 as SwinV2
    from vision.models.text import TextCNN as TextCNN, TextTransformer as TextTransformer
    from vision.models.adapted import Prompts as Prompts, AdaptedTower as AdaptedTower
    from vision.models.unet import UNet as UNet
    from vision.models.vgg import VGG as VGG
    from vision.models.vit import ViT as ViT
    from vision.models.vq import VqAutoencoder as VqAutoencoder
    from vision.models.xcit import Xcit as Xcit
    from vision.objectives.caption import Caption as Caption
    from vision.objectives.classify import Classify as Classify
    from vision.objectives.contrast import Contrast as Contrast, SameKey as SameKey
    from vision.objectives.denoise import Denoise as Denoise
    from vision.objectives.masked_language import MaskedLanguage as MaskedLanguage
    from vision.objectives.multitask import MultiTask as MultiTask
    from vision.objectives.imbalance import (
        Asymmetric as Asymmetric,
        BalancedWeights as BalancedWeights,
        FixedWeights as FixedWeights,
        Focal as Focal,
    )
    from vision.objectives.quantise import Quantise as Quantise
    from vision.objectives.regress import Regress as Regress
    from vision.objectives.reconstruct import Reconstruct as Reconstruct
    from vision.objectives.self_distill import SelfDistill as SelfDistill
    from vision.objectives.two_views import TwoViews as TwoViews
    from vision.scenario.stages import Scenario as Scenario, Stage as Stage
    from vision.weights.init_from import InitFrom as InitFrom
    from vision.weights.pretrained import Pretrained as Pretrained, PretrainedOps as PretrainedOps

# Modules that stand for their contents: ops.Decode, batch_ops.Mixup.
_MODULES = {
    "batch_ops": "vision.data.batch_ops",
    "batch_views": "vision.data.batch_views",
    "columns": "vision.data.columns",
    "ops": "vision.data.ops",
}

_NAMES = {
    "vision.blocks.adapters": ("Lora",),
    "vision.blocks.contrast": ("Ranking", "Sigmoid", "Softmax"),
    "vision.blocks.diffusion": ("Diffusion",),
    "vision.checkpoint.store": ("Checkpoints",),
    "vision.config.specs": ("build", "spec"),
    "vision.config.modes": ("Config",),
    "vision.run.experiment": ("Experiment",),
    "vision.run.mlflow_logger": ("MLflow",),
    "vision.run.nonfinite": ("Nonfinite",),
    "vision.run.stopping": ("EarlyStop",),
    "vision.run.wandb_logger": ("Wandb",),
    "vision.parallel.mesh": ("Mesh", "ShardingRule"),
    "vision.train.objective": ("BatchCoupled", "Objective", "apply", "averaged"),
    "vision.train.optim": (
        "DECAY_KERNELS",
        "Ema",
        "Optimizer",
        "ParameterRule",
        "adafactor",
        "adamw",
        "lion",
        "muon",
        "sgd",
    ),
    "vision.train.precision": ("Precision",),
    "vision.predict.fit": ("fit",),
    "vision.predict.load": ("load",),
    "vision.train.schedule": (
        "Constant",
        "Cosine",
        "LinearDecay",
        "Milestones",
        "Rsqrt",
        "Staircase",
        "WarmupStableDecay",
    ),
    "vision.config.schema": ("ConfigError",),
    "vision.data.class_samplers": ("ClassBalanced", "EpisodeSampler", "PxK"),
    "vision.data.columns": ("ClassLabel", "Number"),
    "vision.data.descriptions": ("Captions",),
    "vision.data.mixture": ("Mixture", "MixturePart"),
    "vision.data.pipeline": ("EvalData", "TrainData"),
    "vision.data.samplers": ("InOrder", "Repeated", "Shuffle", "WeightedSampler"),
    "vision.data.sources.array_record": ("ArrayRecord",),
    "vision.data.sources.arrays": ("Arrays",),
    "vision.data.sources.combine": ("Concat", "Joined", "Relabel", "Subset"),
    "vision.data.sources.computed": ("Computed",),
    "vision.data.sources.digits": ("Digits",),
    "vision.data.sources.emoji": ("Emoji",),
    "vision.data.sources.fake": ("Fake",),
    "vision.data.sources.folder": ("Folder",),
    "vision.data.sources.frames": ("Frames",),
    "vision.data.sources.manifest": ("Manifest",),
    "vision.data.sources.npz": ("Npz",),
    "vision.data.sources.parquet": ("Parquet",),
    "vision.data.sources.scenes": ("Scenes",),
    "vision.data.sources.splits": ("OfClasses", "Split"),
    "vision.data.sources.tfds": ("Tfds",),
    "vision.data.sources.webdataset": ("WebDataset",),
    "vision.data.tokenizers": (
        "ClipTokenizer",
        "HuggingFaceTokenizer",
        "SentencePieceTokenizer",
        "WordTokenizer",
    ),
    "vision.evaluators.robustness.adversarial": ("Adversarial",),
    "vision.evaluators.attribution": ("Attribution",),
    "vision.evaluators.accuracy.calibration": ("Calibration",),
    "vision.evaluators.accuracy.classification": ("Classification",),
    "vision.evaluators.image_text.composed": ("ComposedRetrieval",),
    "vision.evaluators.robustness.corruptions": ("Corruptions",),
    "vision.evaluators.cost": ("Cost",),
    "vision.evaluators.features.few_shot": ("FewShot",),
    "vision.evaluators.accuracy.annotators": ("AnnotatorAgreement",),
    "vision.evaluators.accuracy.groups": ("GroupedAccuracy", "LongTail"),
    "vision.evaluators.accuracy.hierarchy": ("Hierarchical",),
    "vision.evaluators.features.instances": ("InstanceRetrieval",),
    "vision.evaluators.accuracy.label_sets": ("LabelSets",),
    "vision.evaluators.features.linear_heads": ("FindingsProbe", "PatchProbe"),
    "vision.evaluators.accuracy.mistakes": ("Mistakes",),
    "vision.evaluators.robustness.odin": ("Odin",),
    "vision.evaluators.accuracy.ordinal": ("Ordinal", "Regression"),
    "vision.evaluators.robustness.out_of_distribution": ("OutOfDistribution",),
    "vision.evaluators.image_text.pairs": ("CaptionChoice", "CrossedPairs"),
    "vision.evaluators.features.probe": (
        "LinearProbe",
        "NearestNeighbours",
        "RidgeProbe",
        "SgdProbe",
    ),
    "vision.evaluators.features.representation": ("Representation",),
    "vision.evaluators.image_text.retrieval": ("ImageRetrieval", "ImageTextRetrieval"),
    "vision.evaluators.robustness.severity": ("Severity",),
    "vision.evaluators.robustness.shifts": ("NaturalShift",),
    "vision.evaluators.robustness.translation": ("Translation",),
    "vision.evaluators.image_text.zero_shot": ("MultilingualZeroShot", "ZeroShot"),
    "vision.models.autoencoder": ("ConvAutoencoder",),
    "vision.models.bag_of_words": ("BagOfWords",),
    "vision.models.bit": ("BiT",),
    "vision.models.captioner": ("Captioner",),
    "vision.models.convnext": ("ConvNeXt",),
    "vision.models.densenet": ("DenseNet",),
    "vision.models.dual": ("Dual",),
    "vision.models.efficientnet": ("EfficientNet",),
    "vision.models.efficientnet_lite": ("EfficientNetLite",),
    "vision.models.inception": ("InceptionV4",),
    "vision.models.inception_resnet": ("InceptionResNetV2",),
    "vision.models.maxvit": ("MaxVit",),
    "vision.models.mixer": ("Mixer",),
    "vision.models.mobilenet": ("MobileNetV1", "MobileNetV2", "MobileNetV3"),
    "vision.models.mobilenet_v4": ("MobileNetV4",),
    "vision.models.naflex": ("NaflexViT",),
    "vision.models.nasnet": ("NasNet",),
    "vision.models.plain_conv": ("PlainConv",),
    "vision.models.relative_vit": ("RelativeViT",),
    "vision.models.regnet": ("RegNet",),
    "vision.models.resnet": ("ResNet",),
    "vision.models.resnet_v2": ("ResNetV2",),
    "vision.models.rope": ("Rope",),
    "vision.models.swin": ("Swin",),
    "vision.models.swin_v2": ("SwinV2",),
    "vision.models.text": ("TextCNN", "TextTransformer"),
    "vision.models.adapted": ("Prompts", "AdaptedTower"),
    "vision.models.unet": ("UNet",),
    "vision.models.vgg": ("VGG",),
    "vision.models.vit": ("ViT",),
    "vision.models.vq": ("VqAutoencoder",),
    "vision.models.xcit": ("Xcit",),
    "vision.objectives.caption": ("Caption",),
    "vision.objectives.classify": ("Classify",),
    "vision.objectives.contrast": ("Contrast", "SameKey"),
    "vision.objectives.denoise": ("Denoise",),
    "vision.objectives.masked_language": ("MaskedLanguage",),
    "vision.objectives.multitask": ("MultiTask",),
    "vision.objectives.imbalance": (
        "Asymmetric",
        "BalancedWeights",
        "FixedWeights",
        "Focal",
    ),
    "vision.objectives.quantise": ("Quantise",),
    "vision.objectives.regress": ("Regress",),
    "vision.objectives.reconstruct": ("Reconstruct",),
    "vision.objectives.self_distill": ("SelfDistill",),
    "vision.objectives.two_views": ("TwoViews",),
    "vision.scenario.stages": ("Scenario", "Stage"),
    "vision.weights.init_from": ("InitFrom",),
    "vision.weights.pretrained": ("Pretrained", "PretrainedOps"),
}

_HOMES = {
    name.rpartition(" ")[2]: (module, name.partition(" ")[0])
    for module, names in _NAMES.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        module, defined = _HOMES[name]
        return getattr(importlib.import_module(module), defined)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_HOMES])

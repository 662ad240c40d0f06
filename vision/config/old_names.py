"""Names that stand in old workdirs, and what they are called today.

Workdirs keep the import paths and the parameters of constructors, and checkpoints the names of
arrays. When code moves, or a parameter or an array gets another name, a line here keeps what was
written before readable and resumable; nothing else in the code knows old names. The right side is
always today's name: when it changes again, change it here too, in the same line
(``tests/config/test_old_names.py`` imports every constructor).
"""

from __future__ import annotations

# (old, new): a package, a module, or something in one, with all that lies below it.
PATHS: tuple[tuple[str, str], ...] = (
    ("papers.babel_imagenet.method.Translated", "papers.babel_imagenet.translated.Translated"),
    ("papers.diffusion_cls.method.DiffusionProbe", "papers.diffusion_cls.evaluator.DiffusionProbe"),
    ("papers.dreamlip.method.PatchSegmentation", "papers.dreamlip.evaluator.PatchSegmentation"),
    ("papers.fgsm_cw_distill.method.TeacherFrom", "papers.fgsm_cw_distill.teacher.TeacherFrom"),
    (
        "papers.inception_resnet.method.InceptionResNet",
        "papers.inception_resnet.method.InceptionResNetV1",
    ),
    ("papers.label_prop.method.LabelPropagation", "papers.label_prop.evaluator.LabelPropagation"),
    ("papers.label_prop.propagation", "papers.label_prop.method"),
    ("papers.teen.method.FewShotSessions", "papers.teen.evaluator.FewShotSessions"),
    ("vision.methods.learning.teen.FewShotSessions", "papers.teen.evaluator.FewShotSessions"),
    (
        "vision.methods.retrieval_generation.diffusion_cls.DiffusionProbe",
        "papers.diffusion_cls.evaluator.DiffusionProbe",
    ),
    (
        "vision.methods.robust_explain.fgsm_cw_distill.TeacherFrom",
        "papers.fgsm_cw_distill.teacher.TeacherFrom",
    ),
    (
        "vision.methods.vision_language.babel_imagenet.Translated",
        "papers.babel_imagenet.translated.Translated",
    ),
    (
        "vision.methods.vision_language.dreamlip.PatchSegmentation",
        "papers.dreamlip.evaluator.PatchSegmentation",
    ),
    ("vision.adapt", "vision.probes"),
    ("vision.adapt.linear.Linear", "vision.probes.linear.LinearClassifier"),
    ("vision.blocks.attack.State", "vision.blocks.attack.AttackState"),
    ("vision.blocks.box_answers", "papers.visual_rft.box_answers"),
    ("vision.blocks.contrast.Contrast", "vision.blocks.contrast.ContrastResult"),
    ("vision.blocks.ema.follow", "vision.blocks.ema.ema_update"),
    ("vision.blocks.propagation", "papers.label_prop.method"),
    ("papers.salient_relevance.relevance", "vision.blocks.relevance"),
    ("vision.blocks.sharded_contrast.Side", "vision.blocks.sharded_contrast.Modality"),
    ("vision.blocks.square", "vision.evaluators.robustness.square"),
    ("vision.blocks.token_reduction", "papers.clca.token_reduction"),
    ("vision.blocks.token_reduction.Rule", "papers.clca.token_reduction.ReductionRule"),
    ("vision.core.checkpoint", "vision.checkpoint.store"),
    ("vision.core.evaluator", "vision.evaluate.evaluator"),
    ("vision.core.experiment", "vision.run.experiment"),
    ("vision.core.faults", "vision.run.nonfinite"),
    ("vision.core.figures", "vision.evaluate.figures"),
    ("vision.core.mesh", "vision.parallel.mesh"),
    ("vision.core.metrics", "vision.evaluate.metrics"),
    ("vision.core.objective", "vision.train.objective"),
    ("vision.core.optim", "vision.train.optim"),
    ("vision.core.optim.Rule", "vision.train.optim.ParameterRule"),
    ("vision.core.precision", "vision.train.precision"),
    ("vision.core.schedule", "vision.train.schedule"),
    ("vision.core.schedule.Linear", "vision.train.schedule.LinearDecay"),
    ("vision.data.batch_ops.RandomCrop", "vision.data.batch_ops.BatchRandomCrop"),
    ("vision.data.batch_ops.RandomFlip", "vision.data.batch_ops.BatchRandomFlip"),
    ("vision.data.batch_ops.ValueRange", "vision.data.batch_ops.BatchValueRange"),
    ("vision.data.batch_views.Normalize", "vision.data.batch_views.BatchNormalize"),
    ("vision.data.batch_views.RandomResizedCrop", "vision.data.batch_views.BatchRandomResizedCrop"),
    ("vision.data.batches.Endless", "vision.data.batches.Epochs"),
    ("vision.data.batches.Once", "vision.data.batches.SinglePass"),
    ("vision.data.class_samplers.Episodes", "vision.data.class_samplers.EpisodeSampler"),
    ("vision.data.class_samplers.Stratified", "vision.data.class_samplers.StratifiedSampler"),
    ("vision.data.descriptions.Hierarchy", "vision.data.descriptions.HierarchyText"),
    ("vision.data.mixture.Part", "vision.data.mixture.MixturePart"),
    ("vision.data.ops.SayLabel", "vision.data.ops.LabelToCaption"),
    ("vision.data.ops.SayLess", "vision.data.ops.ShortenCaption"),
    ("vision.data.ops.base.BatchOp", "vision.data.ops.base.DeviceOp"),
    ("vision.data.ops.captions.SayLess", "vision.data.ops.captions.ShortenCaption"),
    ("vision.data.ops.classes.SayLabel", "vision.data.ops.classes.LabelToCaption"),
    ("vision.data.ops.codes", "papers.seit_plus_plus.codes"),
    ("vision.data.ops.entities", "papers.mofi.entities"),
    ("vision.data.samplers.Weighted", "vision.data.samplers.WeightedSampler"),
    ("vision.data.sources.bags", "papers.mhim_mil.bags"),
    ("vision.data.sources.scenes.speak", "vision.data.sources.scenes.translate_caption"),
    ("vision.data.sources.splits.Stratified", "vision.data.sources.splits.StratifiedSplit"),
    ("vision.evaluators.adversarial", "vision.evaluators.robustness.adversarial"),
    ("vision.evaluators.altered", "vision.evaluators.robustness.perturbed"),
    ("vision.evaluators.altered.Answers", "vision.evaluators.robustness.perturbed.Predictions"),
    ("vision.evaluators.attacked", "vision.evaluators.robustness.attacks"),
    ("vision.evaluators.calibration", "vision.evaluators.accuracy.calibration"),
    ("vision.evaluators.classification", "vision.evaluators.accuracy.classification"),
    ("vision.evaluators.composed", "vision.evaluators.image_text.composed"),
    ("vision.evaluators.corruptions", "vision.evaluators.robustness.corruptions"),
    ("vision.evaluators.few_shot", "vision.evaluators.features.few_shot"),
    ("vision.evaluators.graders", "vision.evaluators.accuracy.annotators"),
    (
        "vision.evaluators.graders.GradedLabels",
        "vision.evaluators.accuracy.annotators.AnnotatorAgreement",
    ),
    ("vision.evaluators.groups", "vision.evaluators.accuracy.groups"),
    ("vision.evaluators.hierarchy", "vision.evaluators.accuracy.hierarchy"),
    ("vision.evaluators.instances", "vision.evaluators.features.instances"),
    ("vision.evaluators.labelsets", "vision.evaluators.accuracy.label_sets"),
    ("vision.evaluators.linear_heads", "vision.evaluators.features.linear_heads"),
    ("vision.evaluators.mistakes", "vision.evaluators.accuracy.mistakes"),
    ("vision.evaluators.multilabel", "vision.evaluators.accuracy.multilabel"),
    (
        "vision.evaluators.multilabel.MultiLabel",
        "vision.evaluators.accuracy.multilabel.MultiLabelClassification",
    ),
    ("vision.evaluators.multitask", "vision.evaluators.accuracy.multitask"),
    (
        "vision.evaluators.multitask.MultiTask",
        "vision.evaluators.accuracy.multitask.MultiTaskAccuracy",
    ),
    ("vision.evaluators.odin", "vision.evaluators.robustness.odin"),
    ("vision.evaluators.ordinal", "vision.evaluators.accuracy.ordinal"),
    ("vision.evaluators.out_of_distribution", "vision.evaluators.robustness.out_of_distribution"),
    ("vision.evaluators.pairs", "vision.evaluators.image_text.pairs"),
    ("vision.evaluators.probe", "vision.evaluators.features.probe"),
    ("vision.evaluators.representation", "vision.evaluators.features.representation"),
    ("vision.evaluators.retrieval", "vision.evaluators.image_text.retrieval"),
    ("vision.evaluators.severity", "vision.evaluators.robustness.severity"),
    ("vision.evaluators.shifts", "vision.evaluators.robustness.shifts"),
    ("vision.evaluators.taught", "papers.datadam.evaluator"),
    ("vision.evaluators.taught.TaughtBySynthetic", "papers.datadam.evaluator.TrainedOnSynthetic"),
    ("vision.evaluators.translation", "vision.evaluators.robustness.translation"),
    ("vision.evaluators.zero_shot", "vision.evaluators.image_text.zero_shot"),
    ("vision.measures", "vision.metrics"),
    ("vision.measures.graders", "vision.metrics.annotators"),
    ("vision.measures.labelsets", "vision.metrics.label_sets"),
    ("vision.measures.open_images", "papers.open_images.method"),
    ("vision.measures.open_images.Boxes", "papers.open_images.detection.DetectedBoxes"),
    ("vision.measures.outliers", "vision.metrics.out_of_distribution"),
    ("vision.measures.ward", "papers.dendromap.ward"),
    ("vision.methods.architectures.clca", "papers.clca.method"),
    ("vision.methods.architectures.cnn_off_the_shelf", "papers.cnn_off_the_shelf.method"),
    ("vision.methods.architectures.functional_hash", "papers.functional_hash.method"),
    (
        "vision.methods.architectures.functional_hash.Entry",
        "papers.functional_hash.method.CacheEntry",
    ),
    ("vision.methods.architectures.smmix", "papers.smmix.method"),
    ("vision.methods.architectures.transhp", "papers.transhp.method"),
    ("vision.methods.architectures.transhp.Level", "papers.transhp.level.Level"),
    ("vision.methods.datasets.rad_dino", "papers.rad_dino.method"),
    ("vision.methods.datasets.resize_normalize_rs", "papers.resize_normalize_rs.method"),
    ("vision.methods.datasets.zoobot", "papers.zoobot.method"),
    ("vision.methods.datasets.zoobot.Tally", "papers.zoobot.votes.Tally"),
    ("vision.methods.datasets.zoobot.VoteLikelihood", "papers.zoobot.votes.VoteLikelihood"),
    ("vision.methods.learning.aspl", "papers.aspl.method"),
    ("vision.methods.learning.aspl.Rounds", "papers.aspl.rounds.Rounds"),
    ("vision.methods.learning.cil_survey", "papers.cil_survey.method"),
    ("vision.methods.learning.datadam", "papers.datadam.method"),
    ("vision.methods.learning.g_simclr", "papers.g_simclr.method"),
    ("vision.methods.learning.mhim_mil", "papers.mhim_mil.method"),
    ("vision.methods.learning.model_soups", "papers.model_soups.method"),
    ("vision.methods.learning.nmc_frozen", "papers.nmc_frozen.method"),
    ("vision.methods.learning.seit_plus_plus", "papers.seit_plus_plus.method"),
    (
        "vision.methods.learning.seit_plus_plus.ColorAdapt",
        "papers.seit_plus_plus.color_adapt.ColorAdapt",
    ),
    ("vision.methods.learning.teen", "papers.teen.method"),
    ("vision.methods.learning.unem", "papers.unem.method"),
    ("vision.methods.learning.unem.UnrolledEM", "papers.unem.evaluator.UnrolledEM"),
    ("vision.methods.retrieval_generation.diffusion_cls", "papers.diffusion_cls.method"),
    ("vision.methods.retrieval_generation.label_prop", "papers.label_prop.evaluator"),
    ("vision.methods.retrieval_generation.ppap", "papers.ppap.method"),
    ("vision.methods.retrieval_generation.visual_rft", "papers.visual_rft.method"),
    (
        "vision.methods.retrieval_generation.visual_rft.RewardsOf",
        "papers.visual_rft.evaluator.AnswerRewards",
    ),
    ("vision.methods.robust_explain.fgsm_cw_distill", "papers.fgsm_cw_distill.method"),
    (
        "vision.methods.robust_explain.fgsm_cw_distill.TaughtBy",
        "papers.fgsm_cw_distill.teacher.TeacherFrom",
    ),
    ("vision.methods.robust_explain.grad_cam", "papers.grad_cam.method"),
    ("vision.methods.robust_explain.pose", "papers.pose.method"),
    ("vision.methods.robust_explain.rics", "papers.rics.method"),
    ("vision.methods.robust_explain.salient_relevance", "papers.salient_relevance.method"),
    ("vision.methods.robust_explain.worst_forget", "papers.worst_forget.method"),
    (
        "vision.methods.robust_explain.worst_forget.Unlearned",
        "papers.worst_forget.comparison.CompareUnlearning",
    ),
    ("vision.methods.vision_language.adaptclipzs", "papers.adaptclipzs.method"),
    ("vision.methods.vision_language.align", "papers.align.method"),
    ("vision.methods.vision_language.babel_imagenet", "papers.babel_imagenet.method"),
    ("vision.methods.vision_language.biomedclip", "papers.biomedclip.method"),
    ("vision.methods.vision_language.dreamlip", "papers.dreamlip.method"),
    ("vision.methods.vision_language.filip", "papers.filip.method"),
    ("vision.methods.vision_language.loki", "papers.loki.method"),
    (
        "vision.methods.vision_language.m2_encoder.Speak",
        "vision.data.sources.scenes.translate_caption.TranslateCaption",
    ),
    ("vision.methods.vision_language.mofi", "papers.mofi.method"),
    ("vision.methods.vision_language.prefix_conditioning", "papers.prefix_conditioning.method"),
    ("vision.methods.vision_language.zpe", "papers.zpe.method"),
    (
        "vision.methods.vision_language.zpe.WeightedZeroShot",
        "papers.zpe.evaluator.WeightedZeroShot",
    ),
    ("vision.models.attention_mil", "papers.mhim_mil.attention_mil"),
    ("vision.models.bags", "vision.models.bag_of_words"),
    ("vision.models.cosine_head", "papers.teen.cosine_head"),
    ("vision.models.depth_head", "papers.clca.depth_head"),
    ("vision.models.masked_decoder", "papers.seit_plus_plus.masked_decoder"),
    ("vision.models.plain_mamba", "papers.plain_mamba.method"),
    ("vision.models.quantum", "papers.quantum_ham_embed.method"),
    ("vision.models.tuned", "vision.models.adapted"),
    ("vision.models.tuned.Tuned", "vision.models.adapted.AdaptedTower"),
    ("vision.report.dendromap", "papers.dendromap.treemap"),
    ("vision.scenario.continual.Protocol", "vision.scenario.continual.ContinualEvaluation"),
    ("vision.scenario.sampled", "papers.ppap.sampled"),
    ("vision.scenario.stages.Work", "vision.scenario.stages.Job"),
    ("vision.scenario.tokenised", "papers.seit_plus_plus.tokenize_images"),
)

# (constructors, old, new): a parameter of whatever lies at or below a path of today. None: it is
# gone, and what it said is not read.
PARAMETERS: tuple[tuple[str, str, str | None], ...] = (
    ("vision.run.experiment.Experiment", "batch_form", "batch_shapes"),
    ("papers.fgsm_cw_distill.method.DefensiveDistillation", "taught", "distil"),
    # Said how often an evaluator runs while training; now Experiment.evaluate_every.
    ("vision.evaluators", "every", None),
    ("papers", "every", None),
)

# (constructors, parameter, value): a parameter that is gone, and what today's code does in its
# place. A stored config with this value is read; one with another value is refused.
DROPPED: tuple[tuple[str, str, str | float | bool | None], ...] = (
    ("papers.cnn_off_the_shelf.method.OffTheShelf", "label", "label"),
    ("papers.cnn_off_the_shelf.method.OffTheShelf", "output", "embedding"),
    ("papers.datadam.evaluator.TrainedOnSynthetic", "images", "images"),
    ("papers.datadam.evaluator.TrainedOnSynthetic", "label", "label"),
    ("papers.dreamlip.evaluator.PatchSegmentation", "label", "segmentation"),
    ("papers.loki.method.GeometricAnswers", "features", "embedding"),
    ("papers.loki.method.GeometricAnswers", "label", "label"),
    ("papers.loki.method.GeometricAnswers", "logits", "logits"),
    ("papers.mhim_mil.attention_mil.AttentionMIL", "gated", False),
    ("papers.mofi.entities.Link", "feature", "caption"),
    ("papers.mofi.entities.Link", "output", "label"),
    ("papers.nmc_frozen.method.NearestMeanStream", "label", "label"),
    ("papers.nmc_frozen.method.NearestMeanStream", "output", "embedding"),
    ("papers.prefix_conditioning.method.Unlabelled", "feature", "label"),
    ("papers.resize_normalize_rs.method.ResizeNormalize", "label", "label"),
    ("papers.resize_normalize_rs.method.ResizeNormalize", "output", "embedding"),
    ("papers.teen.evaluator.FewShotSessions", "label", "label"),
    ("papers.teen.evaluator.FewShotSessions", "output", "embedding"),
    ("papers.unem.evaluator.UnrolledEM", "label", "label"),
    ("papers.worst_forget.comparison.CompareUnlearning", "label", "label"),
    ("papers.worst_forget.method.WorstForget", "label", "label"),
    ("papers.zoobot.votes.Tally", "raters", "votes"),
    ("papers.zpe.evaluator.WeightedZeroShot", "label", "label"),
    ("vision.checkpoint.store.Checkpoints", "keep_every_s", None),
    ("vision.data.batch_views.TokenMask", "like", "image"),
    ("vision.data.ops.DecodeCrop", "scaled", True),
    ("vision.data.sources.scenes", "artefact_region", "everywhere"),
    ("vision.data.sources.scenes", "stroke_drop", 0.0),
    ("vision.data.sources.scenes", "stroke_jitter", 0.0),
    ("vision.evaluators.attribution.Gradient", "times_input", False),
    ("vision.evaluators.features.few_shot.FewShot", "normalise", True),
    ("vision.evaluators.robustness.corruptions.Corruptions", "before", None),
    ("vision.evaluators.robustness.severity.Severity", "before", None),
    ("vision.models.mobilenet.MobileNetV2", "fixed_ends", False),
)

# (old, new): an array of a checkpoint, or the beginning of the names of several, up to a dot.
ARRAYS: tuple[tuple[str, str], ...] = (("slots", "extra_state"),)


def current_path(path: str) -> str:
    """Today's path of a constructor; of several lines that fit, the longest counts."""
    for old, new in sorted(PATHS, key=lambda line: -len(line[0])):
        if _below(path, old):
            return new + path[len(old) :]
    return path


def current_parameter(constructor: str, name: str) -> str | None:
    """Today's name of a parameter of a constructor (its path of today); None when it is gone."""
    for place, old, new in sorted(PARAMETERS, key=lambda line: -len(line[0])):
        if old == name and _below(constructor, place):
            return new
    return name


def dropped(constructor: str, name: str) -> tuple[bool, str | float | bool | None]:
    """Whether a parameter of a constructor (its path of today) is in ``DROPPED``, and its value."""
    for place, old, value in DROPPED:
        if old == name and _below(constructor, place):
            return True, value
    return False, None


def current_array(name: str) -> str:
    """Today's name of an array such as ``params.model.head.kernel``."""
    for old, new in ARRAYS:
        if _below(name, old):
            return new + name[len(old) :]
    return name


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place + ".")

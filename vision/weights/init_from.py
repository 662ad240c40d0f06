"""Initialisation of a run from weights of other libraries, of another run, or of our files."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vision.checkpoint.manifest import CheckpointError
from vision.checkpoint.reading import flatten, load_state
from vision.checkpoint.retention import named_step
from vision.config.ranges import Regex, checked
from vision.evaluate.class_names import ClassNamesError, class_numbers
from vision.models.adapted import AdaptedTower
from vision.models.dual import Dual
from vision.run.experiment import DataSpec
from vision.run.workdir import DATA_SPEC
from vision.train.tower import Tower
from vision.weights import agreement, cards, hub, packages, zoo
from vision.weights.artefact import LABELS
from vision.weights.mapping import MapEntry, Names, Tensor, Tree, WeightsError, load, misfits
from vision.weights.merge import merged_state
from vision.weights.names import LIBRARIES, names_of, own_names
from vision.weights.preprocessing import disagreements
from vision.weights.reader import open_weights
from vision.weights.timm_cards import UnknownArchitecture
from vision.weights.tower_cards import TowerCard, read_tower, stated_classes

log = logging.getLogger(__name__)
Head = Literal["auto", "read", "new"]
_SCHEMES = (*LIBRARIES, packages.SCHEME, zoo.SCHEME, "workdir", "safetensors")
# What objectives that compare images and texts call the network with temperature and bias.
_LOSS = "contrast"
# Where a run keeps the average of its parameters, below their own names.
_AVERAGE = "extra_state.ema."
# The classifier of a tower.
_HEAD = r"^params\.head\."


@dataclasses.dataclass(frozen=True)
@checked
class InitFrom:
    """Where the parameters of a tower come from before the first step.

    Everything that the file holds is used or, for a reason that the name map states, ignored;
    every parameter is read or kept as ``head`` and ``kept`` say. Positions and patches of a ViT
    are resampled to the images of this run. A ``Dual`` is filled completely: both towers, their
    projections, and the temperature and bias of its loss, where the file has them. Of a run, the
    parameters that it evaluates are read: their average, where it keeps one.

    Attributes:
      source: ``timm:``, ``torchvision:``, ``open_clip:``, ``transformers:`` or ``big_vision:``,
        then a path or, but for torchvision, a name on the hub, ``organisation/name@revision`` or
        ``organisation/name:file``; or ``workdir:<folder of a run>``, ``workdir:<folder>@<step>``
        or ``@best``, or ``safetensors:<path>`` with our own names; or ``package:<name>``, a package
        of weights that ``vision.weights.packages`` knows; or ``efficientnet_pytorch:<path>``; or
        ``zoo:<name>``, a tower that comes with the repository, see ``vision.weights.zoo``.
      head: ``auto`` reads the classifier ``head`` where the file has one of as many classes and
        starts anew otherwise; ``read`` insists on it; ``new`` never reads it.
      kept: regular expressions, searched in names such as ``params.norm.scale``, of parameters
        that keep their initial values.
      into: name of the tower inside the model that alone is filled, such as ``image`` of a
        ``Dual``; empty for the model itself.
      compare: whether the tower has to be the one that the card beside the weights states, where
        there is one; see ``vision.weights.agreement``.
    """

    source: str
    head: Head = "auto"
    kept: tuple[Regex, ...] = ()
    into: str = ""
    compare: bool = True

    def __post_init__(self) -> None:
        scheme, colon, path = self.source.partition(":")
        if scheme not in _SCHEMES or not colon or not path:
            schemes = ", ".join(f"{name}:" for name in _SCHEMES)
            raise ValueError(f"source={self.source!r}, but it starts with one of {schemes}")

    def load(
        self, model: Tower, variables: Mapping[str, Tree], class_names: tuple[str, ...] = ()
    ) -> dict[str, Tree]:
        """The variables of a model, filled from the source.

        Args:
          model: the tower, or what holds it as ``into``.
          variables: ``{"params": tree, "model_state": tree}`` of arrays, whose dtypes and
            shardings the result has; perhaps also ``objective``: by name, the other networks that
            an objective learns.
          class_names: of this run. A head that is read from a run, from a folder with
            ``labels.json`` or beside a card that has the same names, gives every class the logits
            of its name.

        Raises:
          WeightsError: the source cannot be read or does not fit.
        """
        tower: Any = model
        learned = {k: v for k, v in variables.get("objective", {}).items() if k == _LOSS}
        target = {name: variables[name] for name in ("params", "model_state")}
        if self.into:
            tower = getattr(model, self.into, None)
            if tower is None or self.into not in target["params"]:
                parts = ", ".join(target["params"])
                raise WeightsError(f"init_from.into={self.into!r}, but the model has {parts}")
            target = _subtree(target, self.into)
        if learned and _is_dual(tower):
            target["objective"] = learned
        tensors, names, source = self._open(tower, target)
        card = self._compare(tower)
        problem = ""
        if self.head != "new" and any(re.search(_HEAD, name) for name in flatten(target)):
            tensors, problem = self._matched_head(tensors, class_names)
        if problem and self.head == "read":
            raise WeightsError(f"{source}: {problem}; init_from.head='new' starts it anew")
        kept = self._kept(names, tensors, target)
        if problem:
            kept.setdefault(_HEAD, f"since {problem}")
        for pattern, why in kept.items():
            kept_names = [name for name in flatten(target) if re.search(pattern, name)]
            if not kept_names:
                raise WeightsError(f"init_from.kept={pattern!r} is in the name of no parameter")
            log.warning("%s: not read, %s: %s", source, why, ", ".join(kept_names))
        if prefix := _foreign_prefix(names, tensors):
            raise WeightsError(
                f"{source}: all of its names begin with {prefix!r}, of something around the model, "
                f"such as Lightning's: write a file without, "
                f"{{name.removeprefix({prefix!r}): x for name, x in state_dict.items()}}"
            )
        try:
            filled = load(names, tensors, target, kept=kept, source=source)
        except WeightsError as error:
            if card is None:
                raise
            raise WeightsError(
                f"{error}: the tower is the one that {card.path} states; get both from one place"
            ) from error
        if self.head != "new" and not any(re.search(p, "params.head.kernel") for p in kept):
            filled = self._in_order(filled, class_names)
        used = {name for entry in names.entries for name in entry.theirs} & tensors.keys()
        log.info("%s: %d of %d tensors read", source, len(used), len(tensors))
        for entry in names.entries:
            made = _resampled(entry, tensors, flatten(target))
            if made is not None:
                log.info("%s: %s is resampled from %s to %s", source, entry.ours, *made)
        for pattern, why in names.ignored.items():
            left = [name for name in tensors if name not in used and re.fullmatch(pattern, name)]
            if left:
                log.info("%s: %s and others like it are not read, %s", source, left[0], why)
        if "objective" in filled:
            filled["objective"] = {**variables["objective"], **filled["objective"]}
        return {
            **variables,
            **(_with_subtree(variables, filled, self.into) if self.into else filled),
        }

    def remarks(self, evaluations: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """A line for every evaluation whose normalisation differs from that beside the weights.

        Args:
          evaluations: place in the config, such as ``evaluators.val.data.ops``, to the ops there.
        """
        try:
            card_and_path = cards.read(self.source)
        except WeightsError as error:
            return [f"the evaluations are not compared with what the weights expect: {error}"]
        return [] if card_and_path is None else disagreements(*card_and_path, evaluations)

    def _compare(self, tower: Tower) -> TowerCard | None:
        """The card, if there is one; raises unless the tower is its."""
        if not self.compare:
            return None
        try:
            card = read_tower(self.source)
        except UnknownArchitecture as error:
            log.warning("the tower is not compared with what the weights are of: %s", error)
            return None
        if card is None:
            if self.source.partition(":")[0] in LIBRARIES:
                log.info("no card beside %s says which tower it is of; not compared", self.source)
            return None
        agreement.check(card, tower)
        return card

    def _open(self, tower: Tower, target: Tree) -> tuple[Mapping[str, Tensor], Names, str]:
        scheme, _, path = self.source.partition(":")
        file = None
        if scheme == packages.SCHEME:
            scheme, file = packages.known(path).library, packages.file_of(path)
        if scheme == zoo.SCHEME:
            scheme, path = "safetensors", str(zoo.folder_of(path))
        if scheme in LIBRARIES:
            weights = open_weights(file or _find(scheme, path))
            learned = target.get("objective", {}).get(_LOSS, {})
            return weights, names_of(scheme, tower, weights, learned), weights.source
        # In a run's state the tower is below the name ``model``.
        places = {root: f"{root}.model" for root in ("params", "model_state")}
        if scheme == "workdir":
            folder, _, named = path.partition("@")
            try:
                step = named_step(Path(folder), named)
            except CheckpointError as error:
                raise WeightsError(f"init_from.source={self.source!r}: {error}") from error
            pattern = r"(params|model_state)\.model\."
            if "objective" in target:
                pattern += rf"|params\.{_LOSS}\."
            found_step, tensors = _evaluated(Path(folder), step, pattern)
            if not isinstance(tower, AdaptedTower):
                tensors = merged_state(Path(folder), tensors)
            source = f"{folder} at step {found_step}"
        else:
            tensors = open_weights(_find(scheme, path))
            source = tensors.source
            # A complete state, as the checkpoint tools export it, or the tower alone.
            if not any(name.startswith("params.model.") for name in tensors):
                places = {root: root for root in places}
        names = own_names(tower, target, {**places, "objective": "params"})
        # The other loss may have had fewer or more learned parameters than this one.
        entries = [e for e in names.entries if e.ours[:9] != "objective" or e.theirs[0] in tensors]
        ignored = {
            r"(opt_state|extra_state)\..*|step|key": "not of the model but of its training",
            rf"params\.{_LOSS}\..*": "of the loss of that run; the one here does not learn it",
        }
        return tensors, Names(tuple(entries), ignored), source

    def _kept(self, names: Names, tensors: Mapping[str, Tensor], target: Tree) -> dict[str, str]:
        kept = dict.fromkeys(self.kept, "as init_from.kept says")
        if fresh := _unfilled(names, target):
            kept[rf"^({'|'.join(map(re.escape, fresh))})$"] = "since the source has none"
        leaves = flatten(target)
        if self.head == "read" or not any(re.search(_HEAD, name) for name in leaves):
            return kept
        entries = [entry for entry in names.entries if re.search(_HEAD, entry.ours)]
        if self.head == "new":
            kept[_HEAD] = "since init_from.head is 'new'"
        elif problems := misfits(entries, tensors, leaves):
            kept[_HEAD] = f"since {problems[0]}"
        return kept

    def _matched_head(
        self, tensors: Mapping[str, Tensor], class_names: tuple[str, ...]
    ) -> tuple[Mapping[str, Tensor], str]:
        """Tensors whose head has this run's classes in their order; or why it cannot have."""
        head = [name for name in tensors if re.search(r"^params\.(model\.)?head\.", name)]
        try:
            numbers = class_numbers(class_names, self._class_names(), "this run")
        except ClassNamesError as error:
            return tensors, f"its head is of other classes: {error}"
        if numbers is None or not head:
            return tensors, ""
        log.warning("%s: the head's classes are matched to this run's by name", self.source)
        columns = {name: np.asarray(tensors[name][...])[..., list(numbers)] for name in head}
        return {**tensors, **columns}, ""

    def _in_order(self, filled: dict[str, Tree], class_names: tuple[str, ...]) -> dict[str, Tree]:
        """The head of another library's file with this run's classes in their order."""
        stated: tuple[str, ...] = ()
        if "head" in filled["params"] and class_names:
            stated = stated_classes(self.source)
        if not stated or len(stated) != len(class_names) or stated == class_names:
            return filled
        if len({*stated}) < len(stated) or {*stated} != {*class_names}:
            log.warning(
                "%s: the head's classes are %s and so on in its card, but %s and so on in this "
                "run: they are matched by number, not by name",
                *(self.source, stated[0], class_names[0]),
            )
            return filled
        log.warning("%s: the head's classes are matched to this run's by name", self.source)
        order = np.array([stated.index(name) for name in class_names])

        def ordered(x: Any) -> Any:
            if not isinstance(x, jax.Array):
                return x[..., order]
            return jax.jit(lambda x: x[..., order], out_shardings=x.sharding)(x)

        head = jax.tree.map(ordered, filled["params"]["head"])
        return {**filled, "params": {**filled["params"], "head": head}}

    def _class_names(self) -> tuple[str, ...]:
        """Of the source, in the order of its logits; empty where it does not say."""
        scheme, _, path = self.source.partition(":")
        if scheme == zoo.SCHEME:
            return zoo.class_names(path)
        folder = Path(path.partition("@")[0] if scheme == "workdir" else path).expanduser()
        if scheme == "workdir" and (folder / DATA_SPEC).exists():
            return DataSpec.load(folder / DATA_SPEC).class_names
        labels = (folder if folder.is_dir() else folder.parent) / LABELS
        if scheme != "safetensors" or not labels.exists():
            return ()
        try:
            names = json.loads(labels.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{labels} cannot be read: {error}") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise WeightsError(f"{labels} is not a list of class names")
        return tuple(names)


def _evaluated(
    folder: Path, step: int | None, pattern: str
) -> tuple[int, Mapping[str, np.ndarray]]:
    """The step of a run and what it evaluates there, by names without the prefix of an average."""
    step, averaged = load_state(folder, step, rf"^{re.escape(_AVERAGE)}({pattern})")
    if not averaged:
        return load_state(folder, step, f"^({pattern})")
    log.info("%s: the average of its parameters, which it evaluates", folder)
    return step, {name.removeprefix(_AVERAGE): x for name, x in averaged.items()}


def _is_dual(tower: Any) -> bool:
    """Whether it is an image-text model, with adapters or without."""
    return isinstance(tower, Dual) or (isinstance(tower, AdaptedTower) and _is_dual(tower.tower))


def _unfilled(names: Names, target: Tree) -> list[str]:
    """Names of learned parameters of the loss that the source lacks."""
    filled = {entry.ours for entry in names.entries}
    leaves = flatten({"objective": target.get("objective", {})})
    return [name for name in leaves if name not in filled]


def _resampled(
    entry: MapEntry, tensors: Mapping[str, Tensor], leaves: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shapes before and after, of what is made to fit."""
    if entry.fit is None or entry.ours not in leaves or entry.layer:
        return None
    blank = [np.broadcast_to(np.zeros((), np.float32), tensors[k].shape) for k in entry.theirs]
    before, after = entry.form.read(blank).shape, tuple(leaves[entry.ours].shape)
    after = after if entry.layer is None else after[1:]
    return None if before == after else (before, after)


def _find(scheme: str, text: str) -> Path:
    path = Path(text).expanduser()
    if path.exists():
        return path
    hub.check_path(scheme, text)
    try:
        return hub.fetch(hub.qualified(scheme, text))
    except WeightsError as error:
        raise WeightsError(f"there is nothing at {path}, and {error}") from error


def _foreign_prefix(names: Names, tensors: Mapping[str, Tensor]) -> str:
    """What all tensors begin with and nothing in the name map does, or an empty text."""
    first, dot, _ = next(iter(tensors), "").partition(".")
    wanted = [name for entry in names.entries for name in entry.theirs]
    if not dot or any(name.startswith(first + dot) for name in wanted):
        return ""
    return first + dot if all(name.startswith(first + dot) for name in tensors) else ""


def _subtree(variables: Mapping[str, Tree], name: str) -> dict[str, Tree]:
    """Parameters and state of a part of a model."""
    state = variables["model_state"]
    return {
        "params": variables["params"][name],
        "model_state": {key: tree[name] for key, tree in state.items() if name in tree},
    }


def _with_subtree(
    variables: Mapping[str, Tree], part: Mapping[str, Tree], name: str
) -> dict[str, Tree]:
    """Inverse of ``_subtree``: the part put back into the model; other collections are kept."""
    state = dict(variables["model_state"])
    for key, tree in part["model_state"].items():
        state[key] = {**state[key], name: tree}
    params = {**variables["params"], name: part["params"]}
    return {**part, "params": params, "model_state": state}

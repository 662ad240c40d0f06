"""Noise of known amount: in labels, captions and raters' votes, and near-duplicates.

Also Cramer's V, the usual measure of the association of a class and a cue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.captions import agrees, describe
from vision.data.sources.scenes.draws import between, choice
from vision.data.sources.scenes.edits import add, apply, change, remove
from vision.data.sources.scenes.record import Scene, View
from vision.data.sources.scenes.triplets import draw_edits, newcomer
from vision.data.sources.scenes.vocabulary import check_one_of
from vision.data.sources.scenes.world import World

LABEL_NOISE = ("symmetric", "asymmetric")
CAPTION_NOISE = ("attribute", "exchange", "omit", "invent", "other")
DUPLICATES = ("view", "attribute")
_TRIES = 16


def cramers_v(first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> float:
    """Association of two categorical variables [N], 0 (independent) to 1 (one gives the other).

    sqrt(chi2 / (N (min(r, c) - 1))) over the r x c categories that occur; 0 where either is
    constant. Cramer, "Mathematical Methods of Statistics", 1946; without bias correction.

    Raises:
      ValueError: different lengths, or no data.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"need two equally long vectors, got {first.shape} and {second.shape}")
    rows, a = np.unique(first, return_inverse=True)
    columns, b = np.unique(second, return_inverse=True)
    table = np.zeros((len(rows), len(columns)))
    np.add.at(table, (a, b), 1)
    smaller = min(table.shape) - 1
    if not smaller:
        return 0.0
    expected = table.sum(1, keepdims=True) * table.sum(0) / len(first)
    chi2 = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / (len(first) * smaller)))


def mistaken_for(names: Sequence[str]) -> tuple[int, ...]:
    """For every class the one it is confused with: the next class of its family where names end
    in a shape (as in ``red star``), else the next class; the last goes with the first."""
    shapes = [name.split()[-1] for name in names]
    by_shape = all(shape in words.FAMILY_OF for shape in shapes)
    groups: dict[str, list[int]] = {}
    for c, shape in enumerate(shapes):
        groups.setdefault(words.FAMILY_OF[shape] if by_shape else "", []).append(c)
    partner = [0] * len(names)
    for members in groups.values():
        if len(members) == 1:
            members = [members[0], (members[0] + 1) % len(names)]
            partner[members[0]] = members[1]
            continue
        for place, c in enumerate(members):
            partner[c] = members[(place + 1) % len(members)]
    return tuple(partner)


def flipped(label: int, partners: Sequence[int], rate: float, kind: str, u: Sequence[float]) -> int:
    """``label`` after noise: with probability ``rate`` another class, drawn evenly
    (``symmetric``) or always the same one, ``partners[label]`` (``asymmetric``).

    ``u`` holds two uniform numbers.
    """
    check_one_of("label_noise_kind", kind, LABEL_NOISE)
    if u[0] >= rate or len(partners) < 2:
        return label
    if kind == "asymmetric":
        return partners[label]
    other = int(u[1] * (len(partners) - 1))
    return other + (other >= label)


def votes(
    label: int, partners: Sequence[int], accuracies: Sequence[float], u: Sequence[float]
) -> np.ndarray:
    """What raters call an example of class ``label``, int32[R].

    Rater r is right with probability ``accuracies[r]``; half of the mistakes are the class that
    ``label`` is easily confused with, the others are spread over all other classes. ``u`` holds
    two uniform numbers for every rater.
    """
    answers = []
    for r, accuracy in enumerate(accuracies):
        miss, other = u[2 * r], u[2 * r + 1]
        halfway = accuracy + (1 - accuracy) / 2
        kind = "asymmetric" if miss < halfway else "symmetric"
        answers.append(flipped(label, partners, float(miss >= accuracy), kind, (0.0, other)))
    return np.array(answers, np.int32)


def accuracies(mean: float, spread: float, u: Sequence[float]) -> list[float]:
    """One accuracy for every uniform number: ``mean`` give or take ``spread``, within 0..1."""
    return [min(max(between((mean - spread, mean + spread), number), 0.0), 1.0) for number in u]


def misdescribed(world: World, scene: Scene, kind: str, u: Sequence[float]) -> Scene:
    """The scene that a corrupted caption of ``scene`` describes instead.

    ``attribute`` (one colour or shape is wrong), ``exchange`` (two objects trade colours),
    ``invent`` (an object too many) and ``other`` (another scene of ``world``) give false
    captions of every detail; ``omit`` (an object is missing) gives true but incomplete ones.
    Where a kind cannot be had (exchange or omit with one object, or with equal colours), it is
    ``attribute``. ``u`` holds 96 uniform numbers.
    """
    check_one_of("caption_noise_kind", kind, CAPTION_NOISE)
    if kind == "omit" and len(scene.objects) > 1:
        return remove(scene, int(u[0] * len(scene.objects)))
    # Colours and shapes of the whole vocabulary: a false word must exist in any small world.
    for noise_kind in (kind, "attribute"):
        for attempt in range(_TRIES):
            wrong = _wrong(world, scene, noise_kind, u[attempt * 6 : attempt * 6 + 6])
            if not agrees(describe(wrong, "short"), scene):
                return wrong
    raise AssertionError("an attribute can always be wrong")


def _wrong(world: World, scene: Scene, kind: str, u: Sequence[float]) -> Scene:
    count = len(scene.objects)
    k = int(u[0] * count)
    if kind == "exchange" and count > 1:
        j = (k + 1 + int(u[1] * (count - 1))) % count
        first, second = scene.objects[k].colour, scene.objects[j].colour
        return change(change(scene, k, colour=second), j, colour=first)
    if kind == "invent":
        return add(scene, newcomer(world, scene, [*u, *u, *u, *u]))
    if kind == "other":
        return world.scene(int(u[1] * 2**40) + 2**52)
    field, values = ("colour", words.COLOURS) if u[1] < 0.5 else ("shape", words.SHAPES)
    return change(scene, k, **{field: choice(values, u[2])})


def near_duplicate(world: World, scene: Scene, kind: str, u: Sequence[float]) -> Scene:
    """Nearly ``scene``: seen by a slightly moved camera (``view``), or with one attribute or
    place changed (``attribute``; a moved camera where nothing can be changed).

    ``u`` holds 192 uniform numbers.
    """
    check_one_of("duplicate_kind", kind, DUPLICATES)
    if kind == "attribute":
        # Another attribute could leave the classes of an identity world.
        fields = ("colour", "shape", "size", "texture", "variant", "move")
        kinds = ("move",) if world.label == "identity" else fields
        edits = draw_edits(world, scene, 1, kinds, iter(u))
        if edits:
            return apply(scene, *edits)
    view = scene.view
    return dataclasses.replace(
        scene,
        view=View(
            view.zoom * between((0.95, 1.06), u[0]),
            view.shift_y + between((-0.03, 0.03), u[1]),
            view.shift_x + between((-0.03, 0.03), u[2]),
            view.angle_deg + between((-5.0, 5.0), u[3]),
            view.brightness * between((0.93, 1.03), u[4]),
        ),
    )

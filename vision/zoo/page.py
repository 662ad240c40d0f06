"""The page of the zoo: what its members reach, and what lies near what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vision.config.files import replace_file
from vision.config.specs import build, from_plain
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.emoji import Emoji, names
from vision.report.drawing import plain
from vision.report.numbers import metric, number, percent
from vision.report.page import (
    Content,
    code,
    disclosure,
    headlines,
    inline_picture,
    listing,
    note,
    page,
    table,
    tag,
)
from vision.weights import zoo
from vision.zoo.measure import Member, member

QUERIES, NEAREST = 8, 6
_EMBEDDINGS = ("embedding", "image/embedding")


def write_page(out: Path) -> None:
    """Writes the page of all members that are there; one file that needs no other."""
    shown = [member(name) for name in zoo.members()]
    body: list[tuple[str, str, Content]] = [("members", "", _overview())]
    body += [(each.name, each.name, _member(each)) for each in shown]
    text = page("Zoo", "Towers that are trained once, small, by configs.", body)
    with replace_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def rows() -> list[tuple[str, ...]]:
    """A row per member: name, config, parameters, kilobytes, minutes, what it reaches first."""
    found = []
    for name in zoo.members():
        card = zoo.card(name)
        told = (f"{what} {percent(share)}" for what, share in headline(card["reaches"]))
        found.append(
            (
                name,
                Path(card["config"]).stem,
                number(card["parameters"]),
                number(round(card["bytes"] / 1000)),
                f"{card['minutes']:.0f}",
                "; ".join(told),
            )
        )
    return found


COLUMNS = ("member", "config", "parameters", "kB", "minutes", "reaches")


def feature_rows() -> list[tuple[str, ...]]:
    """A row per member that has features: name, of which tower, shape, kilobytes, minutes, what a
    linear head on them reaches."""
    found = []
    for name in zoo.members(features=True):
        card = zoo.card(name, features=True)
        told = (
            f"{what} {key} {percent(share)}"
            for what, numbers in card["reaches"].items()
            for key, share in numbers.items()
        )
        shape = " by ".join(number(size) for size in card["shape"])
        size = number(round(card["bytes"] / 1000))
        minutes = f"{card['minutes']:.0f}"
        found.append((name, card["features"], shape, size, minutes, "; ".join(told)))
    return found


FEATURE_COLUMNS = ("features", "tower", "shape", "kB", "minutes", "reaches")


def headline(reached: dict[str, dict[str, float]]) -> list[tuple[str, float]]:
    """One share of every evaluator, with the names of both."""
    found = []
    for name, numbers in reached.items():
        for key in ("top1", "image_to_text_r1"):
            if key in numbers:
                found.append((f"{name} {key}", numbers[key]))
    return found


def _overview() -> Content:
    listed = [(code(f"{zoo.SCHEME}:{name}"), *rest) for name, *rest in rows()]
    return tag(
        "div",
        headlines(
            [
                ("Members", number(len(listed)), ""),
                ("Parameters", number(sum(zoo.card(n)["parameters"] for n in zoo.members())), ""),
                ("Size", f"{sum(zoo.card(n)['bytes'] for n in zoo.members()) / 1e6:.1f} MB", ""),
            ]
        ),
        table(COLUMNS, listed, numeric=(2, 3, 4)),
        table(FEATURE_COLUMNS, feature_rows(), numeric=(3, 4)),
        note(
            "Measured with the weights that ship, in half precision. new_house: drawings by a "
            "house that was not learned from; unseen: emoji that were not; neighbours: the same "
            "emoji by another house lies nearest."
        ),
        class_="stack",
    )


def _member(each: Member) -> Content:
    card = zoo.card(each.name)
    every = [
        (name, key, metric(key, value))
        for name, numbers in card["reaches"].items()
        for key, value in numbers.items()
    ]
    facts = note(
        f"{card['config']}, seed {card['seed']}, {card['step']} steps in {card['minutes']} minutes "
        f"on {card['device']}."
    )
    numbers_table = table(("evaluator", "metric", "value"), every, numeric=(2,))
    parts: list[Content] = [facts, listing(card["command"])]
    source: Any = build(from_plain(zoo.config(each.name)["data"]["source"]))
    if isinstance(source, Emoji):
        parts += _neighbours(each, source)
    details = disclosure("All numbers", numbers_table)
    return tag("div", *parts, details, class_="stack")


def _drawings(source: Emoji, house: str) -> Emoji:
    """Every drawing by a house of the groups that a member knows, in a fixed order."""
    return Emoji(
        groups=source.groups,
        houses=(house,),  # type: ignore[arg-type]
        split="page",
        features=("image", "label"),
        image_size=source.image_size,
    )


def _embedded(each: Member, source: Emoji) -> np.ndarray:
    """Unit vectors (N, D) of all pictures of a source."""
    data = EvalData(source, 256, ops=(ops.ValueRange(low=-1, high=1),), threads=0)
    program = jax.jit(each.predict)
    found = []
    with jax.set_mesh(each.mesh):
        for batch in data.loader(process_index=0, process_count=1):
            told = program(each.variables, {"image": batch["image"], "_mask": batch["_mask"]})
            name = next(name for name in _EMBEDDINGS if name in told)
            found.append(np.asarray(told[name], np.float32)[np.asarray(batch["_mask"])])
    return _units(np.concatenate(found))


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _neighbours(each: Member, trained: Emoji) -> list[Content]:
    """Drawings by the house that was left out, and what lies nearest of the first house's."""
    (other,) = (h for h in ("noto", "twemoji", "fluent") if h not in trained.houses)
    asked, known = _drawings(trained, other), _drawings(trained, trained.houses[0])
    queries, keys = _embedded(each, asked), _embedded(each, known)
    chosen = np.arange(QUERIES) * (len(asked) // QUERIES)
    order = np.argsort(-queries[chosen] @ keys.T, axis=1, kind="stable")[:, :NEAREST]
    strips: list[Content] = []
    for query, row in zip(chosen.tolist(), order.tolist(), strict=True):
        wanted = asked.subject(query).emoji
        tiles = [_tile(asked, query, "asked")]
        tiles += [_tile(known, k, "same" if known.subject(k).emoji == wanted else "") for k in row]
        strips.append(tag("div", *tiles, class_="strip"))
    heading = f"A drawing by {other}, and the {NEAREST} nearest by {trained.houses[0]}"
    framed = note("In a grey frame the drawing asked about, in a green one the same emoji.")
    parts: list[Content] = [tag("div", tag("h3", heading), framed, *strips)]
    words = zoo.tokenizer(zoo.config(each.name))
    if words is not None:
        parts += _named(each, asked, queries, chosen.tolist(), build(words))
    return parts


def _named(
    each: Member, asked: Emoji, queries: np.ndarray, chosen: Sequence[int], words: Any
) -> list[Content]:
    """The names that lie nearest to some drawings."""
    emoji = sorted({drawing.emoji for drawing in asked.drawings})
    told = [names("en")[k][0] for k in emoji]
    tokens = np.asarray(words.encode(told))
    with jax.set_mesh(each.mesh):
        batch = {"text": tokens, "_mask": np.ones(len(tokens), bool)}
        texts = jax.jit(each.predict)(each.variables, batch)["text/embedding"]
    scores = queries[chosen] @ _units(np.asarray(texts, np.float32)).T
    rows = []
    for query, row in zip(chosen, np.argsort(-scores, axis=1, kind="stable"), strict=True):
        name = names("en")[asked.subject(query).emoji][0]
        best = ", ".join(told[k] for k in row[:4])
        rank = 1 + [told[k] for k in row].index(name)
        rows.append((_tile(asked, query, ""), best, str(rank)))
    columns = ("drawing", f"nearest of {len(told):,} names", "rank of the name")
    return [tag("h3", "Names"), table(columns, rows, numeric=(2,))]


def _tile(source: Emoji, index: int, remark: str) -> Content:
    address = inline_picture(plain(source[index]["image"]))
    name = names("en")[source.subject(index).emoji][0]
    alt = f"{name}, the same emoji" if remark == "same" else name
    image = tag("img", src=address, alt=alt, class_=remark or None)
    return tag("figure", image, tag("figcaption", name), class_="tile")

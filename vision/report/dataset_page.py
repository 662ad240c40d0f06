"""The HTML page of a data set, from its surveys; see ``vision.report.dataset``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vision.data.ops import Tokenize
from vision.data.source import DataError
from vision.report import duplicates
from vision.report.dataset_tables import (
    Findings,
    classes,
    fields_of_records,
    sizes_of_pictures,
    some,
    unreadable,
)
from vision.report.drawing import annotated, pictures_in, plain, thumbnail_of
from vision.report.numbers import number, percent
from vision.report.page import (
    Content,
    config_tree,
    disclosure,
    headlines,
    inline_picture,
    join,
    listing,
    note,
    page,
    table,
    tag,
)
from vision.report.survey import CARD, Survey, example_of, lint

MOST_GROUPS = 12
MOST_MEMBERS = 6
MOST_TEXT = 300
FIRST_SAMPLES = 12


def render(
    surveys: Sequence[Survey],
    *,
    title: str,
    card: Mapping[str, Any],
    config: Mapping[str, Any],
    command: str,
) -> tuple[str, list[str]]:
    """The page as text, and the findings on its top as sentences: faults, then gaps of the card."""
    findings: Findings = []
    gaps: Findings = []
    body: list[tuple[str, str, Content]] = []
    for survey in surveys:
        name = survey.part.name
        sections = (
            ("samples", _samples(survey)),
            ("classes", classes(survey, findings)),
            ("sizes", sizes_of_pictures(survey, findings)),
            ("fields", fields_of_records(survey, findings)),
            ("unreadable", unreadable(survey, findings)),
        )
        inner = [
            tag("div", tag("h3", heading.capitalize()), content, id=f"{name}-{heading}")
            for heading, content in sections
            if content
        ]
        body.append((name, f"Data: {name}", tag("div", _facts(survey), *inner, class_="stack")))
    body.append(("duplicates", "Duplicates", _duplicates(surveys, findings)))
    body.append(("card", "Data set card", _card(surveys, card, findings, gaps)))
    trees = [disclosure(name, config_tree(node)) for name, node in config.items()]
    body.append(("config", "Configuration", tag("div", *trees, class_="stack")))
    if command:
        body.append(("made-with", "Made with", listing(command)))
    top = tag(
        "div",
        _summary(surveys, len(findings), len(gaps)),
        _listed("Faults", findings) if findings else note("No fault was found in what was read."),
        _listed("Gaps of the data set card", gaps) if gaps else "",
        class_="stack",
    )
    names = dict.fromkeys(survey.info.name for survey in surveys)
    text = page(title, ", ".join(names), [("summary", "", top), *body])
    return text, [sentence for sentence, _ in (*findings, *gaps)]


def _summary(surveys: Sequence[Survey], faults: int, gaps: int) -> Content:
    items = []
    for survey in surveys:
        total, read = survey.info.num_examples, len(survey.indices)
        remark = "all read" if read == total else f"{read:,} read, evenly spread"
        items.append((f"Records: {survey.part.name}", number(total), remark))
    if classes := max(survey.num_classes for survey in surveys):
        items.append(("Classes", number(classes), ""))
    bad, read = sum(len(s.bad) for s in surveys), sum(len(s.indices) for s in surveys)
    items.append(("Unreadable", number(bad), f"{percent(bad / read)} of {read:,} read"))
    items.append(("Faults", number(faults), "listed below" if faults else "in what was read"))
    items.append(("Gaps of the card", number(gaps), "listed below" if gaps else "it is complete"))
    return headlines(items)


def _listed(heading: str, findings: Sequence[tuple[str, str]]) -> Content:
    lines = [tag("li", tag("a", text, href=f"#{anchor}")) for text, anchor in findings]
    return tag("div", tag("h3", heading), tag("ul", *lines, class_="findings"))


def _facts(survey: Survey) -> Content:
    info, parts = survey.info, []
    parts.append(f"{info.name}: {info.num_examples:,} records")
    if len(survey.indices) < info.num_examples:
        parts.append(f"{len(survey.indices):,} of them read, evenly spread")
    ops = ", ".join(type(op).__name__ for op in survey.part.ops) or "none"
    parts.append(f"ops: {ops}")
    if survey.part.device_ops:
        later = ", ".join(survey.part.device_ops)
        parts.append(f"later, on the device, and not shown here: {later}")
    return note("; ".join(parts) + ".")


def _samples(survey: Survey) -> Content:
    if survey.op_error:
        return note(f"The ops do not fit the records: {survey.op_error}", warning=True)
    if not survey.samples:
        return note("No record could be read.", warning=True)
    cards = [_sample(survey, index) for index in survey.samples]
    first = tag("div", *cards[:FIRST_SAMPLES], class_="gallery")
    if len(cards) <= FIRST_SAMPLES:
        return first
    more = tag("div", *cards[FIRST_SAMPLES:], class_="gallery")
    return join([first, disclosure(f"{len(cards) - FIRST_SAMPLES} more samples", more)])


def _sample(survey: Survey, index: int) -> Markup:
    example = example_of(survey.part, index)
    key = survey.part.source.key(index)
    pictures = pictures_in(example)
    label = survey.label_of.get(index)
    name = "" if label is None else survey.class_name(label)
    images: list[Content] = []
    entries: list[Content] = []
    other_pictures = list(pictures)
    if pictures:
        main = other_pictures.pop(0)
        annotation = annotated(example, pictures[main])
        images.append(
            _image(annotation[0] if annotation else plain(pictures[main]), f"{key}: {name or main}")
        )
        if annotation:
            entries += [tag("dt", "drawn"), tag("dd", annotation[1])]
            small = [_image(plain(pictures[main]), f"{key}: without annotations")]
        else:
            small = []
        small += [_image(plain(pictures[other]), f"{key}: {other}") for other in other_pictures[:5]]
        if small:
            images.append(tag("div", *small, class_="beside"))
    else:
        images.append(tag("div", "No picture after the ops.", class_="none"))
    if name:
        entries = [tag("dt", "class"), tag("dd", name), *entries]
    texts = [
        tag("p", tag("span", f"{field}: ", class_="field"), text)
        for field, text in _texts(survey, example).items()
    ]
    caption = tag("figcaption", tag("dl", *entries), *texts, tag("code", key, class_="key"))
    return tag("figure", *images, caption)


def _texts(survey: Survey, example: Mapping[str, Any]) -> dict[str, str]:
    """Captions after the ops: as texts, or decoded from their tokens."""
    texts: dict[str, str] = {}
    for op in survey.part.ops:
        if isinstance(op, Tokenize) and op.output in example:
            (text,) = op.tokenizer.decode(np.asarray(example[op.output]))
            texts[f"{op.output} (tokens)"] = text
            if cut := int(example.get(f"{op.output}_cut", 0)):
                texts[f"{op.output}_cut"] = f"{cut} tokens left out"
    for name, value in example.items():
        if name.startswith("_"):
            continue
        if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            value = " | ".join(value)
        if isinstance(value, str):
            texts[name] = value
    return {k: v if len(v) <= MOST_TEXT else v[:MOST_TEXT] + " ..." for k, v in texts.items()}


def _image(png: bytes, alt: str) -> Markup:
    return tag("img", src=inline_picture(png), alt=alt)


def _duplicates(surveys: Sequence[Survey], findings: Findings) -> Content:
    places = [(survey, index) for survey in surveys for index in survey.prints]
    if not places:
        return note("No pictures that could be compared.")
    prints = [survey.prints[index] for survey, index in places]
    groups, skipped = duplicates.find(prints)

    def kinds(group: duplicates.DuplicateGroup) -> tuple[bool, bool]:
        members = [places[i] for i in group.members]
        labels = {survey.label_of.get(index) for survey, index in members} - {None}
        return len({id(survey) for survey, _ in members}) > 1, len(labels) > 1

    exact = sum(group.exact for group in groups)
    leaks = sum(kinds(group)[0] for group in groups)
    clashes = sum(kinds(group)[1] for group in groups)
    extra = sum(len(group.members) - 1 for group in groups)
    if groups:
        findings.append(
            (
                f"{some(extra, 'repetition')} among {len(places):,} pictures: "
                f"{some(exact, 'group')} equal in every pixel, "
                f"{len(groups) - exact:,} nearly equal",
                "duplicates",
            )
        )
    if leaks:
        findings.append(
            (f"the same picture in several parts of the data: {some(leaks, 'group')}", "duplicates")
        )
    if clashes:
        findings.append(
            (f"the same picture with different classes: {some(clashes, 'group')}", "duplicates")
        )
    remarks = [
        f"{len(places):,} pictures before the ops, compared by difference hash (at most "
        f"{duplicates.MAX_BITS} of 128 bits) and thumbnail (mean difference at most "
        f"{duplicates.MAX_DIFFERENCE:g} of 255)"
    ]
    if any(len(survey.indices) < survey.info.num_examples for survey in surveys):
        remarks.append("only among the records read: raise --limit to find more")
    if skipped:
        remarks.append(f"{skipped:,} pairs of very similar hashes were not compared")
    method_note = note("; ".join(remarks) + ".")
    if not groups:
        return join([note("None."), method_note])
    groups = sorted(groups, key=lambda group: [not flag for flag in kinds(group)])
    shown = [_group(group, [places[i] for i in group.members]) for group in groups[:MOST_GROUPS]]
    hidden = len(groups) - len(shown)
    more = note(f"{hidden:,} more groups are not shown.") if hidden else ""
    return tag("div", method_note, tag("div", *shown, class_="cards"), more, class_="stack")


def _group(group: duplicates.DuplicateGroup, members: Sequence[tuple[Survey, int]]) -> Markup:
    figures = []
    for survey, index in members[:MOST_MEMBERS]:
        key = survey.part.source.key(index)
        label = survey.label_of.get(index)
        caption_text = survey.part.name + ("" if label is None else f", {survey.class_name(label)}")
        try:
            png = thumbnail_of(survey.part.source[index])
        except DataError:
            png = b""
        picture = (
            _image(png, f"{key}: {caption_text}")
            if png
            else tag("div", "No picture.", class_="none")
        )
        caption = tag("figcaption", caption_text, tag("code", key, class_="key"))
        figures.append(tag("figure", picture, caption))
    heading = "Equal in every pixel" if group.exact else "Nearly equal"
    if len(members) > len(figures):
        heading += f": {len(figures)} of {len(members)}"
    return tag("div", tag("h4", heading), tag("div", *figures, class_="gallery"))


def _card(
    surveys: Sequence[Survey], card: Mapping[str, Any], findings: Findings, gaps: Findings
) -> Content:
    parts: list[Content] = []
    sources: dict[str, Survey] = {}
    for survey in surveys:
        sources.setdefault(type(survey.part.source).__name__ + survey.info.homepage, survey)
    for survey in sources.values():
        info = survey.info
        rows: list[tuple[Content, ...]] = [("name", info.name, "")]
        missing = dict(lint(info, list(survey.fields), dict(card)))
        for field in CARD:
            stated = getattr(info, field) or card.get(field)
            in_records = [c for c in CARD[field][0] if c in survey.fields]
            if field in missing:
                gaps.append((f"card of {info.name}: {field} is missing", "card"))
                rows.append((field, tag("strong", "missing"), missing[field]))
            else:
                in_columns = f"per record, in {', '.join(in_records)}"
                rows.append((field, str(stated or in_columns), ""))
        for text in _names(info.class_names):
            findings.append((f"{info.name}: {text}", "card"))
            rows.append(("class names", tag("strong", text), ""))
        extra = [(k, str(v), "") for k, v in card.items() if k not in CARD]
        parts.append(table(("field", "says", "to answer"), [*rows, *extra]))
    hint = "Complete it in the source's SourceInfo, in columns of the records, or with --card=FILE."
    return tag("div", *parts, note(hint), class_="stack")


def _names(names: Sequence[str]) -> list[str]:
    """Messages about class names that are empty or differ in case or spaces only."""
    problems = []
    folded: dict[str, str] = {}
    for name in names:
        if name != name.strip() or not name.strip():
            problems.append(f"class name {name!r} is empty or has spaces around it")
        other = folded.setdefault(name.strip().casefold(), name)
        if other is not name:
            problems.append(f"class names {other!r} and {name!r} differ in case or spaces only")
    return problems

"""Tables of a data set: classes, sizes, fields, unreadable records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vision.report.numbers import number, percent
from vision.report.page import Content, code, disclosure, join, note, share_bar, table, tag
from vision.report.survey import MOST_DISTINCT, Field, Survey

Findings = list[tuple[str, str]]
"""Sentences for the top of the page, each with the id of the place it points to."""

MOST_CLASSES = 60
MOST_BAD = 50
RARE = 10
"""A class is rare when it has less than this part (1 / RARE) of the mean count."""


def some(count: int, one: str, many: str = "") -> str:
    """``1 picture``, ``2,000 pictures``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _counted(
    heads: tuple[str, str], rows: Sequence[tuple[str, int]], total: int, caption: str
) -> Markup:
    most = max(n for _, n in rows)
    cells = [
        (name, f"{n:,}", percent(n / max(total, 1)), share_bar(n / max(most, 1)))
        for name, n in rows
    ]
    return table((*heads, "share", ""), cells, numeric=(1, 2), caption=caption)


def classes(survey: Survey, findings: Findings) -> Content:
    name, anchor = survey.part.name, f"{survey.part.name}-classes"
    if not survey.labels:
        if "label" in survey.fields or survey.num_classes:
            findings.append((f"{name}: no record has a usable class under 'label'", anchor))
            return note("There are classes, but no usable 'label' in the records.", warning=True)
        return note("The records have no 'label'.")
    counts = {c: survey.labels.get(c, 0) for c in range(survey.num_classes)}
    among = survey.among(survey.labels_read)
    outside = sorted(label for label in survey.labels if label not in counts and label != -1)
    counts |= {label: survey.labels[label] for label in outside}
    parts: list[Content] = []
    if unlabelled := survey.labels.get(-1, 0):
        parts.append(note(f"{some(unlabelled, 'record')}{among} without a label (-1)."))
    if not any(counts.values()):
        findings.append((f"{name}: no record has a class{among}", anchor))
        return join(parts)
    if outside and survey.num_classes:
        shown = ", ".join(map(str, outside[:5]))
        text = f"{name}: labels outside 0..{survey.num_classes - 1}{among}: {shown}"
        findings.append((text, anchor))
        parts.append(note(text, warning=True))
    never = [survey.class_name(c) for c, n in counts.items() if n == 0]
    if never:
        shown = ", ".join(never[:5]) + (", ..." if len(never) > 5 else "")
        text = f"{name}: {some(len(never), 'class', 'classes')} without a record{among}: {shown}"
        # Of a sample it says nothing about the data.
        if not among:
            findings.append((text, anchor))
        parts.append(note(text, warning=not among))
    seen = [n for n in counts.values() if n]
    rare = [survey.class_name(c) for c, n in counts.items() if 0 < n < np.mean(seen) / RARE]
    if rare:
        shown = ", ".join(rare[:5]) + (", ..." if len(rare) > 5 else "")
        findings.append(
            (f"{name}: {some(len(rare), 'rare class', 'rare classes')}{among}: {shown}", anchor)
        )
    rows = sorted(counts.items(), key=lambda item: -item[1])
    if survey.num_classes <= MOST_CLASSES:
        rows = list(counts.items())
    named, total = [(survey.class_name(c), n) for c, n in rows], sum(counts.values())
    caption = (
        f"{some(len(seen), 'class', 'classes')} seen{among}; the most frequent is "
        f"{number(max(seen) / min(seen), 3)} times as frequent as the least"
    )
    if len(named) <= MOST_CLASSES:
        return join([*parts, _counted(("class", "records"), named, total, caption)])
    half = MOST_CLASSES // 2
    return join(
        [
            *parts,
            _counted(
                ("class", "records"), named[:half], total, f"The {half} most frequent; {caption}"
            ),
            disclosure(
                f"The {half} least frequent",
                _counted(("class", "records"), named[-half:], total, "Those seen least"),
            ),
        ]
    )


def sizes_of_pictures(survey: Survey, findings: Findings) -> Content:
    if not survey.sizes:
        return ""
    name, anchor = survey.part.name, f"{survey.part.name}-sizes"
    sizes = np.array(list(survey.sizes.values()))
    indices = list(survey.sizes)
    distinct, counts = np.unique(sizes, axis=0, return_counts=True)
    if len(distinct) == 1:
        height, width = distinct[0]
        among = survey.among(len(survey.indices))
        text = f"All pictures{among} are {width} x {height} pixels before the ops (width x height)."
        return note(text)
    long, short, among = sizes.max(1), sizes.min(1), survey.among(len(survey.indices))
    quantities = {
        "width, px": sizes[:, 1],
        "height, px": sizes[:, 0],
        "width / height": sizes[:, 1] / sizes[:, 0],
        "megapixels": sizes.prod(1) / 1e6,
    }
    levels = (0, 5, 50, 95, 100)
    rows = [
        (what, *(number(v, 3) for v in np.percentile(values, levels)))
        for what, values in quantities.items()
    ]
    heads = ("before the ops", "least", "5%", "median", "95%", "most")
    order = np.argsort(-counts, kind="stable")[:8]
    common = [(f"{distinct[i][1]} x {distinct[i][0]}", int(counts[i])) for i in order]
    extreme = [
        ("smallest", int(sizes.prod(1).argmin())),
        ("largest", int(sizes.prod(1).argmax())),
        ("most elongated", int((long / short).argmax())),
    ]
    named = [
        (what, f"{sizes[i][1]} x {sizes[i][0]}", code(survey.part.source.key(indices[i])))
        for what, i in extreme
    ]
    if 0 < (tiny := int((short < 32).sum())) < len(sizes):
        text = f"{name}: {some(tiny, 'picture')}{among} with a side below 32 pixels"
        findings.append((text, anchor))
    if elongated := int((long / short > 5).sum()):
        text = f"{name}: {some(elongated, 'picture')}{among} over five times as long as wide"
        findings.append((text, anchor))
    return tag(
        "div",
        table(heads, rows, numeric=range(1, 6)),
        _counted(
            ("width x height", "pictures"),
            common,
            len(sizes),
            some(len(distinct), "different size"),
        ),
        table(("", "width x height", "record"), named),
        class_="stack",
    )


def fields_of_records(survey: Survey, findings: Findings) -> Content:
    name, anchor = survey.part.name, f"{survey.part.name}-fields"
    read = max((field.present for field in survey.fields.values()), default=0)
    among = survey.among(len(survey.indices))
    rows: list[tuple[Content, ...]] = []
    for key, field in survey.fields.items():
        remarks = []
        missing = read - field.present + field.empty
        if missing:
            remarks.append(f"missing or empty in {missing:,} of {read:,} records{among}")
        if field.not_finite:
            remarks.append(f"some values are NaN or infinite in {some(field.not_finite, 'record')}")
        if field.constant:
            remarks.append(f"the same in all {field.present - field.empty:,} records{among}")
        if len({kind.partition("[")[0] for kind in field.kinds}) > 1:
            remarks.append("of different types in different records")
        findings += [(f"{name}: field {key!r}: {remark}", anchor) for remark in remarks]
        if key not in survey.info.features:
            remarks.append("not described by the source")
        described = survey.info.features.get(key, "")
        marked = tag("strong", "; ".join(remarks)) if remarks else ""
        rows.append((code(key), _kinds(field), _range(field), _distinct(field), described, marked))
    for key in survey.info.features:
        if key not in survey.fields:
            text = f"{name}: field {key!r} is described by the source, but no record has it{among}"
            findings.append((text, anchor))
            rows.append((code(key), "-", "-", "-", survey.info.features[key], tag("strong", text)))
    parts = [
        table(
            ("field", "seen as", "range or length", "distinct", "described as", "remark"),
            rows,
            caption="Records before the ops",
        )
    ]
    mixed = {key: kinds for key, kinds in survey.after_ops.items() if len(kinds) > 1}
    if mixed:
        for key, kinds in mixed.items():
            shown = ", ".join(f"{kind} ({n:,})" for kind, n in kinds.most_common(3))
            text = f"{name}: after the ops {key!r} has several forms, so no batch can be made"
            findings.append((text, anchor))
            parts.append(note(f"{text}: {shown}", warning=True))
    texts = [key for key, kinds in survey.after_ops.items() if any("text" in k for k in kinds)]
    if texts:
        names = ", ".join(texts)
        text = f"{name}: texts are left after the ops ({names}): Tokenize or Drop them"
        findings.append((text, anchor))
        parts.append(note(text, warning=True))
    return tag("div", *parts, class_="stack")


def _kinds(field: Field) -> str:
    kinds = [f"{kind}" for kind, _ in field.kinds.most_common(2)]
    more = len(field.kinds) - len(kinds)
    return ", ".join(kinds) + (f" and {more} more" if more else "") or "-"


def _range(field: Field) -> str:
    if field.low > field.high:
        return "-"
    return f"{number(field.low)} to {number(field.high)}"


def _distinct(field: Field) -> str:
    count = len(field.digests)
    return f"{count:,} or more" if count >= MOST_DISTINCT else f"{count:,}"


def unreadable(survey: Survey, findings: Findings) -> Content:
    if not survey.bad:
        return note(f"All {len(survey.indices):,} records that were read can be used.")
    name = survey.part.name
    sample = " that were read" if survey.among(len(survey.indices)) else ""
    text = f"{name}: {len(survey.bad):,} of {len(survey.indices):,} records{sample} cannot be used"
    findings.append((text, f"{name}-unreadable"))
    rows = [(code(bad.key), bad.reason) for bad in survey.bad[:MOST_BAD]]
    left = len(survey.bad) - len(rows)
    return join(
        [
            note(f"{text}; with on_error='mask' they are masked.", warning=True),
            table(
                ("record", "reason"), rows, caption=f"{left:,} more are not shown" if left else ""
            ),
        ]
    )

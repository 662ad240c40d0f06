"""Zero-shot evaluators and their prompts, against the same sums in numpy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluators.linear_dual import TOKENIZER, WIDTH, data, predict, run, texts_of
from vision.data.prompts import (
    PLAIN,
    SHORT,
    fill,
    load_class_names,
    load_language_templates,
    load_templates,
    prompts,
)
from vision.data.source import DataError
from vision.data.tokenizers import Prefixed
from vision.evaluate.figures import ConfusionMatrix, Curve
from vision.evaluators.image_text.zero_shot import MultilingualZeroShot, ZeroShot, classify

NAMES = ("cat", "dog", "gnu", "yak", "emu", "ibis", "newt")
TEMPLATES = ("a {}.", "two {}s on a {c}", "{}")


def bank_of(names: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
    rows = [texts_of([fill(t, name) for t in templates]).mean(0) for name in names]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def images(count: int, bank: np.ndarray, noise: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    label = rng.integers(0, len(bank), count).astype(np.int32)
    image = bank[label] + noise * rng.normal(size=(count, WIDTH)) / np.sqrt(WIDTH)
    return label, image


def accuracy_of(image: np.ndarray, label: np.ndarray, bank: np.ndarray, k: int = 1) -> float:
    order = np.argsort(-(image @ bank.T), axis=1, kind="stable")[:, :k]
    return float((order == label[:, None]).any(1).mean())


@pytest.mark.parametrize(("templates", "devices"), [(PLAIN, 1), (TEMPLATES, 1), (TEMPLATES, 8)])
def test_equal_to_numpy(templates: tuple[str, ...], devices: int) -> None:
    bank = bank_of(NAMES, templates)
    label, image = images(90, bank)
    label[-1] = -1
    given = data(image=image, label=label, class_names=NAMES)
    got = run(ZeroShot(given, TOKENIZER, templates, text_batch=8), devices)
    image, label = image[:-1], label[:-1]
    assert got["top1"] == accuracy_of(image, label, bank)
    assert got["top5"] == accuracy_of(image, label, bank, 5)
    assert 0.3 < got["top1"] < 1
    each = [accuracy_of(image[label == k], label[label == k], bank) for k in range(7)]
    assert [got[f"accuracy/{name}"] for name in NAMES] == pytest.approx(each)
    assert got["macro"] == pytest.approx(np.mean(each))
    assert got["worst_class"] == min(each)
    assert (got["examples"], got["unlabelled"]) == (89, 1)
    assert got["prompts"] == 7 * len(templates)
    confusion = got["confusion"]
    assert isinstance(confusion, ConfusionMatrix)
    assert np.trace(confusion.counts) == round(got["top1"] * 89)
    assert confusion.class_names == NAMES


def test_an_ensemble_is_no_single_template() -> None:
    bank = bank_of(NAMES, TEMPLATES)
    label, image = images(200, bank)
    given = data(image=image, label=label, class_names=NAMES)
    single = run(ZeroShot(given, TOKENIZER, ("{}",), mistakes=0))
    several = run(ZeroShot(given, TOKENIZER, TEMPLATES, mistakes=0))
    assert several["top1"] > single["top1"]
    assert "mistakes" not in single


def test_mistakes_are_the_most_confident_ones() -> None:
    bank = bank_of(NAMES, PLAIN)
    label, image = images(60, bank)
    given = data(image=image, label=label, class_names=NAMES)
    shown = run(ZeroShot(given, TOKENIZER, temperature=0.1, mistakes=6))["mistakes"].items
    unit = image / np.linalg.norm(image, axis=1, keepdims=True)
    share = np.exp(unit @ bank.T / 0.1)
    share /= share.sum(1, keepdims=True)
    wrong = np.flatnonzero(share.argmax(1) != label)
    expected = wrong[np.argsort(-share.max(1)[wrong])][:6]
    assert [item.index for item in shown] == expected.tolist()
    for item in shown:
        assert item.label == NAMES[label[item.index]]
        assert item.prediction == NAMES[share[item.index].argmax()]
        assert item.score == pytest.approx(share[item.index].max(), rel=1e-5)
        assert item.png


def test_prompts_can_have_the_prefix_of_a_source() -> None:
    """Row 0 of every prompt is the token of captions, or that of labels; here it decides."""

    def seen(variables: Any, batch: Any) -> dict[str, Any]:
        outputs = predict(variables, {k: x for k, x in batch.items() if k != "text"})
        if "text" in batch:
            first = batch["text"][:, 0] - TOKENIZER.vocab_size
            letter = batch["text"][:, 1]
            vector = jax.nn.one_hot(jnp.where(first == 0, letter, -letter) % WIDTH, WIDTH)
            outputs["text/embedding"] = jnp.where((first >= 0)[:, None], vector, jnp.nan)
        return outputs

    names = ("a", "b")
    letters = np.asarray([TOKENIZER.split(name)[0] for name in names])
    label = np.arange(12, dtype=np.int32) % 2
    image = np.eye(WIDTH, dtype=np.float32)[letters[label] % WIDTH]
    given = data(image=image, label=label, class_names=names)
    for source, expected in ((0, 1.0), (1, 0.5)):
        tokenizer = Prefixed(TOKENIZER, source)
        got = run(ZeroShot(given, tokenizer, ("{}",), text_batch=8), function=seen)
        assert got["top1"] == expected


def test_ties_go_to_the_earlier_class() -> None:
    bank = bank_of(NAMES[:2], PLAIN)[[0, 1, 1]]
    label, image = images(30, bank, noise=0)
    best, rank = classify(np.asarray(image, np.float32), label, np.asarray(bank, np.float32))
    np.testing.assert_array_equal(best, np.minimum(label, 1))
    np.testing.assert_array_equal(rank, label == 2)


def test_two_classes_of_one_name_are_refused() -> None:
    """The second could never win, and would take the place of the first's accuracy."""
    label, image = images(30, bank_of(NAMES[:3], PLAIN), noise=0)
    evaluator = ZeroShot(data(image=image, label=label), TOKENIZER)
    names = ("crane", "dog", "crane ")
    with pytest.raises(DataError, match="classes 0 and 2 are both called 'crane '"):
        run(dataclasses.replace(evaluator, class_names=names))


def test_a_name_is_put_in_once() -> None:
    """Also where it has braces of its own."""
    assert fill("a {} of {c}", "set {c} {}") == "a set {c} {} of set {c} {}"
    assert fill("{c}", "{}") == "{}"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff# comments\na photo of a {}.\n\n{c}\n",
        '\ufeff["a photo of a {}.", "{c}"]',
        '\n ["a photo of a {}.",\n "{c}"]\n',
    ],
)
def test_a_templates_file_with_a_byte_order_mark_a_comment_or_json(tmp_path, text) -> None:
    file = tmp_path / "templates.txt"
    file.write_text(text, encoding="utf-8")
    assert load_templates(str(file)) == ("a photo of a {}.", "{c}")


def test_broken_images_are_wrong_and_counted() -> None:
    bank = bank_of(NAMES, PLAIN)
    label, image = images(40, bank, noise=0)
    image[7] = np.nan
    got = run(ZeroShot(data(image=image, label=label, class_names=NAMES), TOKENIZER))
    assert got["nonfinite"] == 1
    assert got["top1"] == 39 / 40
    assert got["confusion"].counts.sum() == 39
    assert not got["mistakes"].items


def test_many_classes_are_not_listed() -> None:
    label, image = images(20, bank_of(NAMES, PLAIN))
    given = data(image=image, label=label, class_names=NAMES)
    got = run(ZeroShot(given, TOKENIZER, list_classes=6, confusion_max_classes=6))
    assert not any(name.startswith("accuracy/") for name in got)
    assert "confusion" not in got
    assert "macro" in got


def test_what_zero_shot_needs_is_named() -> None:
    label, image = images(20, bank_of(NAMES, PLAIN))
    named = data(image=image, label=label, class_names=NAMES)
    for templates in (("a photo of a cat",), ("a {}.", "a {d}.")):
        with pytest.raises(DataError, match=r"no placeholder: put \{\} where"):
            ZeroShot(named, TOKENIZER, templates)
    with pytest.raises(DataError, match="templates holds no template"):
        ZeroShot(named, TOKENIZER, ())
    with pytest.raises(DataError, match="class names of made: there are none; give class_names"):
        run(ZeroShot(data(image=image, label=label), TOKENIZER))
    with pytest.raises(DataError, match="name 1 is ' ', not a name"):
        run(ZeroShot(named, TOKENIZER, class_names=("cat", " ")))
    with pytest.raises(DataError, match=r"label.*outside 0\.\.2.*'made/\d+'.*class_names"):
        run(ZeroShot(named, TOKENIZER, class_names=NAMES[:3]))
    with pytest.raises(ValueError, match="made has no 'species'; it has"):
        run(ZeroShot(named, TOKENIZER, label="species"))
    wrong: list[dict[str, Any]] = [{"mistakes": -1}, {"text_batch": 0}, {"temperature": 0.0}]
    for options in wrong:
        with pytest.raises(ValueError, match=next(iter(options))):
            ZeroShot(named, TOKENIZER, **options)

    def narrow(variables: Any, batch: Any) -> dict[str, Any]:
        return {name: x[..., : len(name) - 6] for name, x in predict(variables, batch).items()}

    def broken(variables: Any, batch: Any) -> dict[str, Any]:
        outputs = predict(variables, batch)
        return {name: x * np.nan if name[0] == "t" else x for name, x in outputs.items()}

    with pytest.raises(ValueError, match=r"\(20, 9\) and text/embedding \(7, 8\).*same"):
        run(ZeroShot(named, TOKENIZER), function=narrow)
    with pytest.raises(DataError, match=r"7 class.*no finite text embedding.*'cat'"):
        run(ZeroShot(named, TOKENIZER), function=broken)


def test_languages(tmp_path: Path) -> None:
    """In one the names are the data's own, in another they mean other classes."""
    bank = bank_of(NAMES, ("{}",))
    label, image = images(120, bank, noise=0.5)
    given = data(image=image, label=label, class_names=NAMES)
    (tmp_path / "names.json").write_text(
        json.dumps(
            {
                "EN": [list(range(7)), list(NAMES)],
                "XX": {"gnu": "yak", "yak": "gnu", "emu": "emu"},
                "DE": [[1, 0], ["Hund", "Katze"]],
            }
        )
    )
    (tmp_path / "templates.json").write_text(json.dumps({"DE": ["ein {}", "das {}"]}))
    got = run(
        MultilingualZeroShot(
            given,
            TOKENIZER,
            str(tmp_path / "names.json"),
            templates_file=str(tmp_path / "templates.json"),
            text_batch=4,
        )
    )
    plain = run(ZeroShot(given, TOKENIZER, ("{}",), mistakes=0))
    assert got["accuracy/EN"] == got["own_accuracy/EN"] == plain["top1"]
    rows = np.isin(label, (2, 3, 4))
    order = [2, 3, 4]
    place = np.searchsorted(order, label[rows])
    assert got["own_accuracy/XX"] == accuracy_of(image[rows], place, bank[order])
    assert got["accuracy/XX"] == accuracy_of(image[rows], place, bank[[3, 2, 4]])
    assert got["accuracy/XX"] < got["own_accuracy/XX"]
    german = bank_of(("Katze", "Hund"), ("ein {}", "das {}"))
    rows = label < 2
    assert got["accuracy/DE"] == accuracy_of(image[rows], label[rows], german)
    assert [got[f"classes/{x}"] for x in ("EN", "XX", "DE")] == [7, 3, 2]
    assert got["accuracy"] == np.mean([got[f"accuracy/{x}"] for x in ("EN", "XX", "DE")])
    figure = got["languages"]
    assert isinstance(figure, Curve)
    assert figure.lines[0].y.tolist() == [got[f"accuracy/{x}"] for x in ("EN", "XX", "DE")]


def test_a_language_without_images_and_one_without_names(tmp_path: Path) -> None:
    label, image = images(30, bank_of(NAMES, ("{}",)))
    label[label == 6] = 0
    given = data(image=image, label=label, class_names=NAMES)
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"EN": [[0, 1], ["cat", "dog"]], "XX": {"newt": "triton"}}))
    got = run(MultilingualZeroShot(given, TOKENIZER, str(path)))
    assert got["languages_without_images"] == 1
    assert "accuracy/XX" not in got
    assert got["accuracy"] == got["accuracy/EN"]
    (tmp_path / "templates.json").write_text(json.dumps({"FR": ["un {}"]}))
    with pytest.raises(DataError, match=r"templates\.json: no class names in 'FR'.*EN, XX"):
        run(
            MultilingualZeroShot(
                given, TOKENIZER, str(path), templates_file=str(tmp_path / "templates.json")
            )
        )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"XX": [[0, 9], ["a", "b"]]}, r"'XX': 9 is no class; they are 0\.\.6"),
        ({"XX": [[0, 1], ["a"]]}, r"'XX' has 2 class indices and 1 names"),
        ({"XX": [[0, 0], ["a", "b"]]}, r"'XX' names class 0 twice"),
        ({"XX": [[0, 1], ["a", ""]]}, r"'XX': name 1 is '', not a name"),
        ({"XX": {"catt": "a"}}, r"'XX': 'catt' is none of the 7 classes"),
        ({"XX": {}}, r"'XX': there are none"),
        ({"XX": "cat"}, r"'XX' is neither"),
        ([], r"must map languages to class names"),
    ],
)
def test_broken_files_of_class_names(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=rf"names\.json: ?{message}"):
        load_class_names(str(path), NAMES)


def test_files_of_templates(tmp_path: Path) -> None:
    lines, listed = tmp_path / "templates.txt", tmp_path / "templates.json"
    lines.write_text("# two\n\n a {}. \nthe {c}\n", encoding="utf-8")
    listed.write_text(json.dumps(["a {}.", "the {c}"]))
    assert load_templates(str(lines)) == load_templates(str(listed)) == ("a {}.", "the {c}")
    label, image = images(20, bank_of(NAMES, ("a {}.", "the {c}")))
    given = data(image=image, label=label, class_names=NAMES)
    assert run(ZeroShot(given, TOKENIZER, templates_file=str(lines)))["prompts"] == 14
    for text, message in (
        ("a {}\nno place\n", "'no place' has no placeholder"),
        ("# nothing\n", "holds no template"),
    ):
        lines.write_text(text)
        with pytest.raises(DataError, match=rf"templates\.txt.*{message}"):
            load_templates(str(lines))
    listed.write_text('["a {}"')
    with pytest.raises(DataError, match=r"templates\.json: not JSON: .*line 1"):
        load_templates(str(listed))
    listed.write_text('{"EN": ["a {}"], "DE": ["ein"]}')
    with pytest.raises(DataError, match=r"holds dict, not a list"):
        load_templates(str(listed))
    with pytest.raises(DataError, match=r"'DE': 'ein' has no placeholder"):
        load_language_templates(str(listed))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_templates(str(tmp_path / "none.txt"))
    lines.write_bytes(b"\xff {}")
    with pytest.raises(DataError, match="not UTF-8"):
        load_templates(str(lines))


def test_prompts() -> None:
    assert prompts(("a {}", "{} {c} {x}"), ("cat", "{} set")) == [
        "a cat",
        "cat cat {x}",
        "a {} set",
        "{} set {} set {x}",
    ]
    assert len(SHORT) == 7
    assert all(fill(template, "cat").count("cat") == 1 for template in SHORT + PLAIN)

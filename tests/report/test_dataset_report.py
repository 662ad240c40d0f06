"""The page of a data set: what is found, what is written, and how it looks in a browser."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.report.browser import CONTRAST, Browser, needs_browser
from vision.config.specs import spec
from vision.data import ops
from vision.data.all_records import has_column
from vision.data.pipeline import EvalData, TrainData
from vision.data.source import SourceInfo
from vision.data.sources.arrays import Arrays
from vision.data.sources.combine import Concat
from vision.data.sources.digits import Digits
from vision.data.sources.fake import Fake
from vision.data.sources.folder import Folder
from vision.data.sources.scenes import Scenes
from vision.data.tokenizers import ClipTokenizer
from vision.report.dataset import main, parts_of, write_dataset_report
from vision.report.drawing import annotated, pictures_in
from vision.report.duplicates import MAX_BITS, find, print_of
from vision.report.numbers import percent
from vision.report.survey import CARD, SourcePart, even_over_classes, lint, survey

PHOTOS = [np.ascontiguousarray(photo) for photo in load_sample_images().images]


def encode(pixels: np.ndarray, container: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, container, **options)
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def crops(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    pictures = []
    for i in range(count):
        y, x = rng.integers(0, 300), rng.integers(0, 500)
        pictures.append(np.ascontiguousarray(PHOTOS[i % 2][y : y + 96, x : x + 120]))
    return pictures


BAD = {"cut.jpg": encode(PHOTOS[0])[:4000], "page.jpg": b"<!DOCTYPE html>", "empty.png": b""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photographs in two classes, three files that are none, and one photograph in both
    classes, once as it is and once saved again."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for name in ("left", "right"):
        (root / name).mkdir(parents=True)
    for i, pixels in enumerate(crops(20)):
        (root / ("left", "right")[i % 2] / f"{i:02}.jpg").write_bytes(encode(pixels))
    (root / "left" / "whole.jpg").write_bytes(encode(PHOTOS[1]))
    (root / "right" / "again.jpg").write_bytes(encode(PHOTOS[1], quality=55))
    for name, data in BAD.items():
        (root / "left" / name).write_bytes(data)
    return root


def folder_config(root: Path) -> Any:
    steps = [spec(ops.Decode), spec(ops.Resize, size=(48, 48)), spec(ops.ValueRange)]
    source = spec(Folder, root=str(root))
    return spec(TrainData, source=source, batch_size=4, ops=steps, on_error="mask")


def scenes_config() -> Any:
    features = ("image", "label", "boxes", "masks", "valid", "caption_long")
    source = spec(Scenes, num_examples=40, image_size=32, features=features, num_objects=(1, 3))
    tokenizer = spec(ClipTokenizer, length=40)
    steps = [spec(ops.Tokenize, tokenizer=tokenizer, feature="caption_long"), spec(ops.ValueRange)]
    return spec(TrainData, source=source, batch_size=4, ops=steps)


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("pages") / "folder.html"
    return out, write_dataset_report(folder_config(folder), out, title="photos")


@pytest.fixture(scope="module")
def scenes_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "scenes.html"
    write_dataset_report(scenes_config(), out, title="scenes")
    return out


def test_every_close_pair_of_hashes_is_looked_up() -> None:
    """Against comparing all pairs, on prints that differ in known numbers of bits."""
    rng = np.random.default_rng(0)
    base = print_of(PHOTOS[0])
    prints = []
    for i in range(60):
        bits = np.unpackbits(base.bands.view(np.uint8))
        bits[rng.choice(128, rng.integers(0, 12), replace=False)] ^= 1
        bands = np.packbits(bits).view(np.uint16)
        prints.append(type(base)(bands, base.thumb, str(i).encode()))
    linked = {
        (i, j)
        for i, j in itertools.combinations(range(60), 2)
        if np.bitwise_count(prints[i].bands ^ prints[j].bands).sum() <= MAX_BITS
    }
    parent = list(range(60))
    for _ in range(60):
        for i, j in linked:
            parent[i] = parent[j] = min(parent[i], parent[j])
    groups, skipped = find(prints)
    assert skipped == 0
    expected = {tuple(k for k in range(60) if parent[k] == r) for r in set(parent)}
    assert {group.members for group in groups} == {g for g in expected if len(g) > 1}


def test_altered_copies_are_found_and_others_are_not() -> None:
    photo = PHOTOS[1]
    small = np.asarray(Image.fromarray(photo).resize((200, 133)))
    brighter = np.clip(photo.astype(int) + 4, 0, 255).astype(np.uint8)
    copies = [photo, photo.copy(), decoded(encode(photo, quality=40)), small, brighter]
    others = crops(12)
    groups, _ = find([print_of(p) for p in [*others, *copies]])
    assert [group.members for group in groups] == [tuple(range(12, 17))]
    assert not groups[0].exact
    (same,), _ = find([print_of(p) for p in (photo, others[0], photo.copy())])
    assert same.members == (0, 2)
    assert same.exact
    flat = [np.full((20, 20, 3), value, np.uint8) for value in (0, 90, 180, 92)]
    assert [group.members for group in find([print_of(p) for p in flat])[0]] == [(1, 3)]
    assert find([]) == ([], 0)


def test_crowded_buckets_are_bounded_and_counted() -> None:
    rng = np.random.default_rng(0)
    base = print_of(np.zeros((8, 8, 3), np.uint8))
    prints = [
        type(base)(base.bands, rng.integers(0, 256, (16, 16, 3), np.uint8), str(i).encode())
        for i in range(320)
    ]
    groups, skipped = find(prints)
    assert groups == []
    assert skipped == 8 * 19 * 20 // 2


def test_bad_records_are_those_that_the_pipeline_masks(folder: Path) -> None:
    steps = (ops.Decode(), ops.Resize(size=(16, 16)))
    source = Folder(str(folder))
    with EvalData(source, 5, steps, on_error="mask").loader() as loader:
        for _ in loader:
            pass
        masked = [(bad.key, bad.reason) for bad in loader.take_bad()]
    surveyed = survey(SourcePart("train", source, steps), limit=1000)
    assert [(bad.key, bad.reason) for bad in surveyed.bad] == masked
    assert {Path(key).name for key, _ in masked} == set(BAD)
    assert len(surveyed.sizes) == len(source) - len(BAD)
    assert surveyed.fields["image"].empty == 1
    assert not {bad.index for bad in surveyed.bad} & set(surveyed.samples)


def test_a_limit_reads_evenly_and_says_so(tmp_path: Path) -> None:
    source = Scenes(num_examples=1000, image_size=16)
    surveyed = survey(SourcePart("train", source), limit=5)
    assert surveyed.indices == (0, 250, 500, 749, 999)
    config = spec(TrainData, source=spec(Scenes, num_examples=1000, image_size=16), batch_size=4)
    write_dataset_report(config, tmp_path / "page.html", limit=5)
    assert "5 of them read, evenly spread" in (tmp_path / "page.html").read_text()


def test_missing_constant_and_mixed_fields_are_named(tmp_path: Path) -> None:
    class Odd(Arrays):
        @property
        def info(self) -> SourceInfo:
            described = {"image": "uint8", "label": "int32", "ghost": "float32"}
            return SourceInfo("odd", len(self), ("a", " a", "B", "b"), described)

    empty = np.array(["x", "", None, "y"], object)
    mixed = np.array(["x", 1, 2, 3], object)
    source = Odd(
        {
            "image": np.stack(crops(4))[:, :8, :8],
            "label": np.array([0, 1, 9, 1], np.int32),
            "note": empty,
            "mixed": mixed,
            "same": np.full(4, 7),
            "weight": np.array([[1, np.nan], [1, 2], [3, 4], [5, 6]]),
        }
    )
    from vision.report.dataset_page import render

    surveyed = survey(SourcePart("train", source), limit=10)
    text, findings = render([surveyed], title="t", card={}, config={}, command="")
    for sentence in (
        "train: field 'note': missing or empty in 2 of 4 records",
        "train: field 'same': the same in all 4 records",
        "train: field 'mixed': of different types in different records",
        "train: field 'weight': some values are NaN or infinite in 1 record",
        "train: field 'ghost' is described by the source, but no record has it",
        "train: labels outside 0..3: 9",
        "train: 2 classes without a record: B, b",
        "odd: class names 'a' and ' a' differ in case or spaces only",
        "odd: class names 'B' and 'b' differ in case or spaces only",
        "card of odd: licence is missing",
    ):
        assert sentence in findings
    assert "labels outside 0..3: 9" in text
    # What the card does not say is no fault of the records.
    gaps = [sentence for sentence in findings if sentence.startswith("card of odd: ")]
    assert findings[-len(gaps) :] == gaps
    heading = "Gaps of the data set card</h3>"
    assert text.index("Faults</h3>") < text.index("labels outside") < text.index(heading)
    assert text.index(heading) < text.index("card of odd: licence is missing")


def test_samples_are_even_over_the_classes() -> None:
    label_of = {i: 0 if i < 95 else 1 + i % 3 for i in range(100)}
    readable = [i for i in range(100) if i != 0]
    samples = even_over_classes(readable, label_of, 8)
    assert [label_of[i] for i in samples] == [0, 1, 2, 3, 0, 1, 3, 0]
    assert len(set(samples)) == 8
    assert [i for i in samples if label_of[i] == 0] == [1, 47, 94]
    assert len(even_over_classes(readable, label_of, 2)) == 2
    assert {label_of[i] for i in even_over_classes(readable, label_of, 2)} == {0, 3}
    assert even_over_classes(readable, {}, 3) == (1, 50, 99)
    assert even_over_classes([], label_of, 3) == ()


def test_ops_that_do_not_fit_are_shown_not_raised(tmp_path: Path) -> None:
    config = scenes_config()
    config.ops = (spec(ops.ValueRange), spec(ops.ValueRange))
    write_dataset_report(config, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "The ops do not fit the records" in text
    assert "ValueRange" in text


def test_records_of_several_shapes_are_no_batch(folder: Path, tmp_path: Path) -> None:
    config = folder_config(folder)
    config.ops = (spec(ops.Decode),)
    findings = write_dataset_report(config, tmp_path / "page.html")
    assert "data: after the ops 'image' has several forms, so no batch can be made" in findings


def test_the_card_is_linted() -> None:
    bare = SourceInfo("x", 3)
    names = [name for name, _ in lint(bare, [], {})]
    assert names == list(CARD)
    full = SourceInfo("x", 3, licence="CC0-1.0", homepage="https://example.org", citation="us")
    assert [name for name, _ in lint(full, ["consent"], {"collection": "2020"})] == [
        "personal_data"
    ]
    for made in (Scenes(num_examples=1), Digits(), Fake(1), Concat((Digits(), Digits()))):
        assert not lint(made.info, [], {})


def test_boxes_and_masks_are_drawn_where_they_are() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 2:6, 2:6] = True
    boxes = np.array([[2, 2, 6, 6], [8, 8, 14, 12], [0, 0, 0, 0]], np.float32)
    example = {"boxes": boxes, "masks": masks, "valid": np.array([True, False, False])}
    drawn = annotated(example, picture)
    assert drawn is not None
    png, words = drawn
    assert words == "1 mask, 1 box"
    pixels = decoded(png)
    assert pixels.shape == (192, 192, 3)
    ys, xs = np.nonzero(pixels.any(2))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (24, 71, 24, 71)
    inside = pixels[40, 40]
    assert inside.any()
    assert (inside < pixels[24 + 1, 40]).any()
    assert annotated({}, picture) is None
    stack = {"views": np.zeros((6, 8, 8, 3), np.uint8), "image": picture, "masks": masks}
    assert list(pictures_in(stack)) == ["image", "views[0]", "views[1]", "views[2]", "views[3]"]


def test_the_page_of_a_folder(page: tuple[Path, list[str]], folder: Path) -> None:
    path, findings = page
    text = path.read_text()
    assert "data: 3 of 25 records cannot be used" in findings
    assert "the same picture with different classes: 1 group" in findings
    assert (
        "1 repetition among 22 pictures: 0 groups equal in every pixel, 1 nearly equal" in findings
    )
    for name in BAD:
        assert str(folder / "left" / name) in text
    assert "empty file (0 bytes)" in text
    assert re.search(r"14</td>|>14<", text)  # records of the class left
    assert text.count("<figure>") == 22 + 2
    assert text.count("<img") == text.count(' alt="')


def test_the_page_of_scenes_shows_what_the_model_reads(scenes_page: Path) -> None:
    text = scenes_page.read_text()
    assert len(re.findall(r"<dt>drawn</dt><dd>\d masks?, \d box(es)?</dd>", text)) == 24
    assert "text (tokens)" in text
    assert "the background is" in text
    assert "tokens left out" in text


def test_training_and_evaluation_data_are_compared(folder: Path, tmp_path: Path) -> None:
    config_file = tmp_path / "both.py"
    config_file.write_text(
        "from configs.folder_vit import get_config as base\n"
        "def get_config(root):\n"
        "    config = base(root)\n"
        "    for node in (config.data, config.evaluators.val.data):\n"
        "        node.source.part, node.source.fraction = 'all', 0.0\n"
        "    return config\n"
    )
    out = tmp_path / "page.html"
    assert main([f"--config={config_file}:{folder}", f"--out={out}", "--limit=9"]) == 0
    text = out.read_text()
    assert "Data: train" in text
    assert "Data: val" in text
    assert "the same picture in several parts of the data: " in text
    assert "only among the records read: raise --limit" in text


def test_parts_that_are_the_same_are_shown_once() -> None:
    from vision.config.specs import load

    parts, plain = parts_of(load("configs/digits_vit.py"))
    assert [part.name for part in parts] == ["train", "test"]
    assert parts[0].device_ops == ("BatchValueRange", "BatchRandomCrop")
    assert set(plain) == {"train", "test"}


def test_the_command_names_what_is_wrong(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from vision.config.cli import run_main

    config = "--config=configs/digits_vit.py"
    card = tmp_path / "card.json"
    card.write_text("[]")
    for arguments, message in (
        ([config, "--limit=0"], "--limit=0: a whole number"),
        ([config, f"--card={card}"], "a card is a JSON object"),
        ([config, f"--out={tmp_path}/none/x.html", "--limit=2"], "cannot be written"),
        ([config, "--config.data.sorce=1"], "did you mean 'source'"),
        ([], "--config=... is required"),
    ):
        assert run_main(lambda words: main(words), arguments) == 2
        assert message in capsys.readouterr().err
    card.write_text(json.dumps({"consent": "not applicable", "personal_data": "no", "made": "x"}))
    out = tmp_path / "page.html"
    config = f"--config=configs/folder_vit.py:{folder}"
    assert main([config, f"--card={card}", f"--out={out}", "--limit=20"]) == 0
    printed = capsys.readouterr().out
    assert "collection is missing" in printed
    assert "consent" not in printed
    assert "not applicable" in out.read_text()


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_right_in_a_browser(
    browser: Browser, page: tuple[Path, list[str]], scenes_page: Path, width: int, scheme: str
) -> None:
    browser.scheme(scheme)
    for path in (page[0], scenes_page):
        browser.open(path, width=width)
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        assert browser.messages() == []
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run(CONTRAST) == []
        broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth)).length"
        assert browser.run(broken) == 0
        dead = (
            "return [...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash.slice(1))"
            ".filter(id => !document.getElementById(id))"
        )
        assert browser.run(dead) == []
    browser.scheme("light")


@needs_browser
@pytest.mark.slow
def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 2<script>"
    source = Arrays(
        {"image": np.stack(crops(3)), "label": np.zeros(3, int), evil: np.array([evil] * 3)},
        name=evil,
        class_names=(evil,),
    )
    from vision.report.dataset_page import render

    surveyed = survey(SourcePart("train", source), limit=10)
    text, _ = render([surveyed], title=evil, card={evil: evil}, config={}, command=evil)
    (tmp_path / "evil.html").write_text(text)
    browser.open(tmp_path / "evil.html")
    assert browser.run("return window.hacked ?? null") is None
    assert browser.run("return document.querySelectorAll('[onerror], img[src=x]').length") == 0
    assert evil in browser.run("return document.body.textContent")


def test_many_classes_are_cut_and_shares_are_of_everything(tmp_path: Path) -> None:
    from vision.report.dataset_page import render

    labels = np.repeat(np.arange(100), np.arange(1, 101))
    names = tuple(f"class {i}" for i in range(100))
    source = Arrays({"label": labels}, "many", names)
    text, findings = render(
        [survey(SourcePart("train", source), limit=10_000)],
        title="t",
        card={},
        config={},
        command="",
    )
    assert "train: 5 rare classes: class 0, class 1, class 2, class 3, class 4" in findings
    assert "The 30 most frequent; 100 classes seen" in text
    assert percent(100 / len(labels)) in text  # of all records, not of those shown
    assert 'scope="row">class 50<' not in text
    assert 'scope="row">class 0<' in text
    assert 'scope="row">class 99<' in text


def test_classes_are_counted_in_all_records_or_the_sample_is_named(tmp_path: Path) -> None:
    for k in range(300):
        (tmp_path / "images" / f"c{k:03}").mkdir(parents=True)
        for i in range(2):
            pixels = np.full((4, 4, 3), (k % 256, i, k // 256), np.uint8)
            (tmp_path / "images" / f"c{k:03}" / f"{i}.png").write_bytes(encode(pixels, "PNG"))
    source = spec(Folder, root=str(tmp_path / "images"))
    data = spec(EvalData, source=source, batch_size=4, ops=[spec(ops.Decode)])
    out = tmp_path / "all.html"
    findings = write_dataset_report(data, out, limit=100)
    assert not [text for text in findings if "without a record" in text]
    assert "300 classes seen; " in out.read_text()

    # A source that has to open its records to know their labels.
    source = spec(Fake, num_examples=400, image_size=4, num_classes=300)
    data = spec(EvalData, source=source, batch_size=4)
    out = tmp_path / "sampled.html"
    findings = write_dataset_report(data, out, limit=100)
    # A class that a sample does not have is no fault of the data, but is said in its place.
    assert not [text for text in findings if "without a record" in text]
    assert "without a record among the 100 read: " in out.read_text()
    assert "seen among the 100 read; " in out.read_text()
    assert "All pictures among the 100 read are 4 x 4" in out.read_text()
    findings = write_dataset_report(data, out, limit=400)
    assert not [text for text in findings if "without a record" in text]
    assert "among the" not in out.read_text()


def test_whether_a_source_knows_its_labels() -> None:
    arrays = Arrays({"image": np.zeros((2, 4, 4, 3), np.uint8), "label": np.array([0, -1])})
    assert has_column(Concat((arrays, arrays)))
    assert not has_column(Concat((arrays, Fake(2, 4, 2))))
    part = SourcePart("train", Arrays(arrays.arrays, "few", ("a", "b")))
    assert survey(part, 1).labels == {0: 1, -1: 1}
    assert survey(part, 1).labels_read == 2

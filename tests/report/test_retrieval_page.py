"""The retrieval page: what it ranks, what it refuses, and clicks in a real browser."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report.browser import (
    AXE,
    CONTRAST,
    LAYOUT,
    Browser,
    needs_browser,
    serious_faults,
    until,
)
from vision.blocks.similarity import LateInteraction
from vision.config.cli import run_main
from vision.config.specs import spec, to_plain
from vision.data import ops
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.scenes import Scenes
from vision.data.tokenizers import WordTokenizer
from vision.evaluators.image_text.retrieval import ImageTextRetrieval
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.contrast import Contrast
from vision.report.retrieval import main, open_index
from vision.report.retrieval_index import Index
from vision.report.retrieval_page import render
from vision.report.retrieval_server import MAX_JSON, MAX_K, application
from vision.report.server import address_of, allowed, bind, server
from vision.report.uploads import MAX_UPLOAD
from vision.run.experiment import Experiment
from vision.run.initial import init_run
from vision.train.optim import Optimizer, adamw

WORDS = ("a", "is", "on", "the", "in", "large", "small", "red", "green", "circle", "square")
COUNT, GRID = 30, (2, 3)


def config() -> Any:
    tokenizer = spec(WordTokenizer, words=WORDS, length=24)

    def scenes(split: str, count: int) -> Any:
        return spec(
            Scenes,
            split=split,
            num_examples=count,
            image_size=(16, 24),
            features=("image", "caption_long"),
            label="shape_colour",
        )

    tokenize = spec(ops.Tokenize, tokenizer=tokenizer, feature="caption_long")
    return spec(
        Experiment,
        data=spec(
            TrainData,
            source=scenes("train", 32),
            batch_size=16,
            ops=[tokenize],
            batch_ops=[spec(BatchValueRange, low=-1, high=1)],
            threads=0,
        ),
        model=spec(
            Dual,
            image=spec(ViT, width=16, depth=1, heads=2, patch=8, pool="cls"),
            text=spec(
                TextTransformer,
                vocab_size=4 + len(WORDS),
                width=16,
                depth=1,
                heads=2,
                context=24,
            ),
            width=16,
        ),
        objective=spec(Contrast),
        optimizer=spec(Optimizer, method=spec(adamw), learning_rate=1e-2),
        total="3 steps",
        evaluators={
            "retrieval": spec(
                ImageTextRetrieval,
                data=spec(
                    EvalData,
                    source=scenes("test", COUNT),
                    batch_size=16,
                    ops=[spec(ops.ValueRange, low=-1, high=1), tokenize],
                    threads=0,
                ),
                tokenizer=tokenizer,
                examples=0,
            )
        },
    )


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights; the same serve embeddings and, token by token, late interaction."""
    root = tmp_path_factory.mktemp("runs")
    bare, plain = config(), to_plain(config())
    bare.evaluators = {}
    init_run(bare, root / "global")
    shutil.copytree(root / "global", root / "late")
    (root / "global" / "config.json").write_text(json.dumps(plain))
    plain["model"]["tokens"] = True
    plain["objective"]["similarity"] = to_plain(spec(LateInteraction, chunk=4))
    (root / "late" / "config.json").write_text(json.dumps(plain))
    return {name: root / name for name in ("late", "global")}


@pytest.fixture(scope="module")
def indices(workdirs: dict[str, Path]) -> dict[str, Index]:
    return {name: open_index(folder)[0] for name, folder in workdirs.items()}


@contextlib.contextmanager
def serving(index: Index) -> Iterator[str]:
    page, policy = render(index, "tiny")
    with bind("127.0.0.1", 0) as bound:
        running = server(application(index, page, policy))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield address_of(bound)
        finally:
            running.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def addresses(indices: dict[str, Index]) -> Iterator[dict[str, str]]:
    with serving(indices["late"]) as late, serving(indices["global"]) as one:
        yield {"late": late, "global": one}


def ask(
    root: str, path: str, body: Any = None, kind: str = "application/json", **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, body (JSON as its value) and headers; the path goes out as it stands."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(root).netloc, timeout=30)
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    if data is not None:
        sent["content-type"] = kind
    connection.request("GET" if data is None else "POST", path, data, sent)
    answer = connection.getresponse()
    got, found = answer.read(), {k.lower(): v for k, v in answer.getheaders()}
    connection.close()
    is_json = found.get("content-type", "").startswith("application/json")
    return answer.status, json.loads(got) if is_json else got, found


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def reference(index: Index, sentence: str) -> np.ndarray:
    """Scores of all images by the formulas of FILIP and CLIP, in plain numpy."""
    text = index.ask(sentence).text
    assert text is not None
    if "embedding" in text:
        return index.images["embedding"] @ text["embedding"][0]
    words = text["tokens"][0][text["mask"][0].astype(bool)]
    return (index.images["tokens"] @ words.T).max(1).mean(1)


@pytest.mark.parametrize("name", ["late", "global"])
def test_a_sentence_ranks_the_gallery(name: str, indices: dict[str, Index], addresses: Any):
    index = indices[name]
    assert len(index) == COUNT
    assert len(index.ids) == COUNT
    status, answer, _ = ask(
        addresses[name], "/api/search", {"text": "a red circle on the square", "k": 7}
    )
    assert status == 200
    expected = reference(index, "a red circle on the square")
    results = answer["images"]["results"]
    order = np.argsort(-expected, kind="stable")[:7]
    assert [r["image"] for r in results] == order.tolist()
    np.testing.assert_allclose([r["score"] for r in results], expected[order], atol=1e-5)
    assert answer["images"]["lowest"] == pytest.approx(expected.min(), abs=1e-5)
    assert answer["captions"] is None
    assert answer["query"]["read_as"] == "a red circle on the square"

    caption = index.captions[11]
    status, answer, _ = ask(addresses[name], "/api/search", {"text": caption, "k": 1})
    scores = reference(index, caption)
    known = {each["item"]: each["rank"] for each in answer["images"]["known"]}
    assert 11 in known
    assert known == {i: 1 + int((scores > scores[i]).sum()) for i in known}


def test_words_and_patches_add_up_to_the_score(indices: dict[str, Index], addresses: Any):
    index = indices["late"]
    assert index.grid == GRID
    assert index.images["tokens"].shape[1] == 1 + 6  # a class token, which has no place
    _, answer, _ = ask(addresses["late"], "/api/search", {"text": "a red zebra", "k": 5})
    assert answer["query"]["words"] == ["[start]", "a", "red", "<unknown>", "[end]"]
    text = index.ask("a red zebra").text
    assert text is not None
    words = text["tokens"][0][:5]
    for result in answer["images"]["results"]:
        tokens = index.images["tokens"][result["image"]]
        cosines = np.asarray(result["match"]) / 1000
        np.testing.assert_allclose(cosines, words @ tokens[1:].T, atol=6e-4)
        whole = np.concatenate([words @ tokens[:1].T, cosines], 1)
        assert whole.max(1).mean() == pytest.approx(result["score"], abs=1e-3)
    _, answer, _ = ask(addresses["global"], "/api/search", {"text": "a red zebra", "k": 5})
    assert "words" not in answer["query"]
    assert "match" not in answer["images"]["results"][0]


@pytest.mark.parametrize("name", ["late", "global"])
def test_a_picture_ranks_captions_and_other_images(
    name: str, indices: dict[str, Index], addresses: Any
):
    index = indices[name]
    _, answer, _ = ask(addresses[name], "/api/search", {"image": 4, "k": MAX_K})
    assert len(answer["images"]["results"]) == COUNT - 1
    assert 4 not in [r["image"] for r in answer["images"]["results"]]
    captions = answer["captions"]["results"]
    assert len(captions) == COUNT
    scores = [r["score"] for r in captions]
    assert scores == sorted(scores, reverse=True)
    own_captions = [r for r in captions if r["own"]]
    assert [r["text"] for r in own_captions] == [index.captions[4]]
    assert answer["captions"]["known"] == [{"item": 4, "rank": own_captions[0]["rank"]}]
    # To late interaction the two directions differ; to one embedding they are the same numbers.
    if name == "global":
        both = {r["image"]: r["score"] for r in captions}
        for caption in (3, 4):
            assert both[caption] == pytest.approx(
                float(reference(index, index.captions[caption])[4]), abs=1e-5
            )
    # A picture and a sentence: the mean of both scores.
    text = "a small red square"
    alone = {r["image"]: r["score"] for r in answer["images"]["results"]}
    _, answer, _ = ask(addresses[name], "/api/search", {"image": 4, "text": text, "k": MAX_K})
    expected = reference(index, text)
    for result in answer["images"]["results"]:
        mean = (alone[result["image"]] + expected[result["image"]]) / 2
        assert result["score"] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("name", ["late", "global"])
def test_an_uploaded_picture_takes_the_way_of_the_data(
    name: str, indices: dict[str, Index], addresses: Any
):
    index = indices[name]
    pixels = index.data.source[9]["image"]
    root = addresses[name]
    _, uploaded, _ = ask(root, "/api/search?k=30", png(pixels), "image/png")
    _, stored, _ = ask(root, "/api/search", {"image": 9, "k": 30})
    assert uploaded["images"]["results"][0]["image"] == 9
    same = uploaded["captions"]["results"], stored["captions"]["results"]
    first, second = ({r["image"]: r["score"] for r in results} for results in same)
    assert first == pytest.approx(second, abs=1e-5)
    # Another size is brought to that of the gallery: twice as large and a border cut off.
    large = np.pad(np.kron(pixels, np.ones((2, 2, 1), np.uint8)), ((8, 8), (0, 0), (0, 0)))
    _, cut, _ = ask(root, "/api/search?k=30", png(large), "image/png")
    assert cut["images"]["results"][0]["image"] == 9
    status, png_bytes, _ = ask(root, "/image/9")
    assert status == 200
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes))), pixels)


JPEG = b"\xff\xd8\xff\xe0 no picture"
SEARCH = "/api/search"
REFUSED: dict[str, tuple[str, Any, str, int, str]] = {
    "no json": (SEARCH, b"{", "application/json", 400, "no JSON"),
    "deep json": (SEARCH, b"[" * 9000, "application/json", 400, "no JSON"),
    "no object": (SEARCH, [], "application/json", 400, "JSON object"),
    "unknown key": (SEARCH, {"txt": "a"}, "application/json", 400, "'txt' is unknown"),
    "nothing": (SEARCH, {"text": "  "}, "application/json", 422, "nothing to search for"),
    "no words": (SEARCH, {"text": "?!"}, "application/json", 422, "token"),
    "number": (SEARCH, {"text": 3}, "application/json", 400, "must be a string"),
    "long": (SEARCH, {"text": "a" * 1001}, "application/json", 400, "at most 1000"),
    "surrogate": (SEARCH, b'{"text": "\\ud800"}', "application/json", 400, "surrogate"),
    "k 0": (SEARCH, {"text": "a", "k": 0}, "application/json", 400, "k: must be"),
    "k 101": (SEARCH, {"text": "a", "k": 101}, "application/json", 400, "1 to 100"),
    "k true": (SEARCH, {"text": "a", "k": True}, "application/json", 400, "k: must be"),
    "k nan": (SEARCH, b'{"text": "a", "k": NaN}', "application/json", 400, "k: must be"),
    "image -1": (SEARCH, {"image": -1}, "application/json", 400, "image: must be"),
    "image 30": (SEARCH, {"image": 30}, "application/json", 404, "no image 30"),
    "much json": (SEARCH, b" " * (MAX_JSON + 1), "application/json", 413, "at most"),
    "form": (SEARCH, b"text=a", "application/x-www-form-urlencoded", 415, "Content-Type"),
    "gif": (SEARCH, b"GIF89a", "image/png", 415, "neither"),
    "broken": (SEARCH, JPEG, "image/jpeg", 422, "damaged"),
    "large": (SEARCH, b"\xff" * (MAX_UPLOAD + 1), "image/jpeg", 413, "at most"),
    "upload k": (SEARCH + "?k=x", JPEG, "image/jpeg", 400, "k: must be"),
    "get": (SEARCH, None, "", 405, "Method"),
    "start": ("/api/gallery?start=-1", None, "", 400, "start: must be"),
    "count": ("/api/gallery?count=9999", None, "", 400, "count: must be"),
    "no image": ("/image/30", None, "", 404, "no image 30"),
    "huge": ("/image/" + "9" * 300, None, "", 400, "whole number"),
    "up": ("/image/../../etc/passwd", None, "", 404, "Not Found"),
    "encoded": ("/image/..%2f..%2fetc%2fpasswd", None, "", 404, "Not Found"),
    "dotfile": ("/config.json", None, "", 404, "Not Found"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, addresses: dict[str, str]):
    path, body, kind, status, said = REFUSED[case]
    got, answer, headers = ask(addresses["global"], path, body, kind)
    assert (got, list(answer)) == (status, ["error"])
    assert said in answer["error"]
    assert "default-src 'none'" in headers["content-security-policy"]


def test_a_body_without_a_length_is_cut_off(addresses: dict[str, str]):
    """The server reads no more than it takes, whatever the sender announces."""
    where = urllib.parse.urlsplit(addresses["global"])
    with socket.create_connection((where.hostname, where.port), timeout=20) as raw:
        head = f"POST /api/search HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: image/png\r\n"
        raw.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        part = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(MAX_UPLOAD // 2**20 + 1):
                raw.sendall(part)
        assert raw.recv(200).startswith(b"HTTP/1.1 413 ")


def test_other_names_and_pages_are_refused(addresses: dict[str, str]):
    root = addresses["global"]
    netloc = urllib.parse.urlsplit(root).netloc
    body = {"text": "a", "k": 1}
    assert ask(root, "/", Host="evil.example")[0] == 421
    assert ask(root, "/api/search", body, Host=f"evil.example:{netloc}")[0] == 400
    assert ask(root, "/api/search", body, Origin="http://evil.example")[0] == 403
    assert ask(root, "/api/search", body, Origin="null")[0] == 403
    assert ask(root, "/api/search", body, Origin=f"http://{netloc}")[0] == 200
    assert allowed("localhost:8008", "127.0.0.1")
    assert allowed("[::1]:8008", "127.0.0.1")
    assert not allowed("10.0.0.7:8008", "127.0.0.1")
    assert not allowed("", "127.0.0.1")
    assert allowed("10.0.0.7", "0.0.0.0")
    assert not allowed("my.example", "0.0.0.0")
    assert allowed("my.example:80", "my.example")
    assert not allowed("[", "my.example")


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--host", "0.0.0.0", "--public"),
        ("--port", "70000", "65535"),
        ("--data", "elsewhere", "neither a folder of pictures nor an evaluator"),
        ("--workdir", ".", "not the workdir of a run"),
    ],
)
def test_wrong_flags(
    flag: str,
    value: str,
    said: str,
    workdirs: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
):
    flags = {"--workdir": str(workdirs["late"]), "--port": "0", flag: value}
    assert run_main(main, [f"{name}={x}" for name, x in flags.items()]) == 2
    assert said in capfd.readouterr().err


def test_the_command_serves_a_folder(workdirs: dict[str, Path], tmp_path: Path):
    """Every other file is taken; one of them is broken."""
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.png", "deep/c.PNG", ".hidden.png"):
        (tmp_path / name).write_bytes(png(rng.integers(0, 255, (40, 60, 3), np.uint8)))
    (tmp_path / "broken.jpg").write_bytes(JPEG)
    (tmp_path / "out.png").symlink_to(workdirs["late"] / "config.json")
    # Read from another thread, which pytest's own capture does not survive.
    answers, said = [], io.StringIO()

    def visitor() -> None:
        deadline = time.monotonic() + 200
        try:
            while "(Ctrl-C ends it)" not in said.getvalue() and time.monotonic() < deadline:
                time.sleep(0.05)
            address = said.getvalue().rpartition("retrieval page: ")[2].split()[0]
            encoded = (tmp_path / "deep" / "c.PNG").read_bytes()
            answers.append(ask(address, "/api/gallery")[1])
            answers.append(ask(address, "/api/search?k=1", encoded, "image/png")[1])
        finally:  # whatever happened: the server waits for this
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=visitor)
    thread.start()
    arguments = [f"--workdir={workdirs['late']}", "--port=0", f"--data={tmp_path}", "--limit=3"]
    with contextlib.redirect_stdout(said):
        assert run_main(main, arguments) == 0
    thread.join(timeout=60)
    (gallery, found), text = answers, said.getvalue()
    assert "http://127.0.0.1:" in text
    assert "3 of 4 images, evenly spread" in text
    assert "1 image(s) could not be read and are left out: " in text
    assert "broken.jpg: damaged" in text
    assert [each["key"] for each in gallery["images"]] == ["a.png", "deep/c.PNG"]
    # The captions of the run's own data are not theirs.
    assert [each["captions"] for each in gallery["images"]] == [[], []]
    assert found["captions"] is None
    assert [each["key"] for each in found["images"]["results"]] == ["deep/c.PNG"]


# ---- in the browser


def visit(browser: Browser, address: str, width: int = 1400) -> None:
    browser.visit(address, width)
    until(browser, "document.querySelectorAll('.hit').length === 24")


def settled(browser: Browser) -> None:
    until(
        browser,
        "document.querySelector('main').ariaBusy === 'false' &&"
        " [...document.images].filter(i => i.getAttribute('src')).every(i => i.complete)",
    )


def status(browser: Browser) -> str:
    return browser.run("return document.querySelector('#status').textContent")


SCORED = "document.querySelectorAll('.hit .value').length"
SHOWN: Callable[[Browser], list[str]] = lambda b: b.run(  # noqa: E731
    "return [...document.querySelectorAll('.hit img')].map(i => i.getAttribute('src'))"
)


@needs_browser
@pytest.mark.slow
def test_a_sentence_then_words_then_patches(
    browser: Browser, addresses: dict[str, str], indices: dict[str, Index]
):
    visit(browser, addresses["late"])
    assert browser.run("return document.activeElement.id") == "text"
    settled(browser)  # until pictures are there, the button moves
    browser.click("#more")
    until(browser, f"document.querySelectorAll('.hit').length === {COUNT}")
    caption = indices["late"].captions[5]
    browser.type("#text", caption + "\ue007")  # Enter
    until(browser, f"{SCORED} === 24")
    settled(browser)
    expected = np.argsort(-reference(indices["late"], caption), kind="stable")[:24]
    assert SHOWN(browser) == [f"/image/{i}" for i in expected]
    assert "The true image of this caption is at rank" in status(browser)

    tinted = "[...document.querySelectorAll('.hit')].filter(h => h.querySelector('.frame')).length"
    assert browser.run(f"return {tinted}") == 0
    browser.click("#words .words button:nth-child(3)")
    assert browser.run(f"return {tinted}") == 24
    browser.click(".hit .look")
    assert browser.run("return document.querySelector('dialog').open")
    browser.click("#match .words button:nth-child(2)")
    picture = "#match-picture"
    assert browser.run("return document.querySelectorAll('#match .frame:not(.under)').length") == 3
    browser.point(picture, 0.95)  # the right column, between the two rows
    readout = browser.run("return document.querySelector('.readout').textContent")
    found = re.match("The patch in row ([12]), column 3 is nearest to “", readout)
    assert found
    answer = ask(addresses["late"], SEARCH, {"text": caption, "k": 1})[1]
    nearest = np.asarray(answer["images"]["results"][0]["match"])
    nearest = nearest[:, 3 * int(found[1]) - 1].argmax()
    assert f"“{answer['query']['words'][nearest]}”" in readout
    assert browser.run("return [...document.querySelectorAll('#match .words button')]"
                       ".findIndex(b => b.classList.contains('near'))") == nearest  # fmt: skip
    browser.type(picture, "\ue013\ue012")  # up, left
    readout = browser.run("return document.querySelector('.readout').textContent")
    assert readout.startswith("The patch in row 1, column 2 is nearest to “")
    browser.click("#close")
    assert not browser.run("return document.querySelector('dialog').open")
    assert browser.messages() == []


@needs_browser
@pytest.mark.slow
def test_pictures_as_queries(
    browser: Browser, addresses: dict[str, str], indices: dict[str, Index], tmp_path: Path
):
    visit(browser, addresses["late"])
    browser.click(".hit:nth-child(3) button.picture")
    until(browser, "!document.querySelector('#captions').hidden")
    assert "Its own caption is at rank" in status(browser)
    assert browser.run("return document.querySelectorAll('.captions li.own').length") <= 1
    assert "/image/2" not in SHOWN(browser)
    browser.click(".captions .look")
    assert browser.run("return document.querySelector('dialog').open")
    browser.type("#match-picture", "\ue00c")  # Escape
    browser.click("#remove")
    until(browser, f"{SCORED} === 0")

    file = tmp_path / "mine.png"
    file.write_bytes(png(indices["late"].data.source[9]["image"]))
    browser.type("#file", str(file))
    until(browser, f"{SCORED} > 0")
    assert SHOWN(browser)[0] == "/image/9"
    settled(browser)
    broken = "return [...document.images].filter(i => i.src && !i.naturalWidth).length"
    assert browser.run(broken) == 0
    file.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    browser.type("#file", str(file))
    until(browser, "!document.querySelector('#error').hidden")
    assert "Cannot search: " in browser.run("return document.querySelector('#error').textContent")
    outside = browser.run(
        "return performance.getEntriesByType('resource').map(e => e.name)"
        ".filter(name => !name.startsWith(location.origin) && !name.startsWith('blob:'))"
    )
    assert outside == []


@needs_browser
@pytest.mark.slow
def test_on_a_phone_in_the_dark_and_without_a_server(
    browser: Browser, indices: dict[str, Index], addresses: dict[str, str]
):
    with serving(indices["global"]) as address:
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            visit(browser, address, width=400)
            assert "it has no view of which patch" in browser.run("return document.body.innerText")
            browser.click(".example")
            until(browser, f"{SCORED} === 24")
            settled(browser)
            assert browser.run("return document.documentElement.scrollWidth") <= 400
            assert browser.run(LAYOUT) == []
            assert browser.run(CONTRAST) == []
            assert not AXE.is_file() or serious_faults(browser) == []
            assert browser.run("return document.querySelectorAll('dialog, .look').length") == 0
            unanswered = "fetch = () => new Promise(() => {}); clear(); browse(0);"
            waiting = "return document.querySelectorAll('.waiting').length"
            assert browser.run(unanswered + waiting) == 12
            assert browser.run(LAYOUT) == []
            visit(browser, address, width=400)
            assert browser.run(waiting) == 0
    browser.messages()
    browser.click(".primary")
    until(browser, "!document.querySelector('#error').hidden")
    assert "does not answer" in browser.run("return document.querySelector('#error').textContent")
    browser.scheme("light")
    visit(browser, addresses["late"], width=400)
    browser.click(".example")
    until(browser, f"{SCORED} === 24")
    browser.click(".hit .look")
    assert browser.run(LAYOUT) == []
    assert not AXE.is_file() or serious_faults(browser) == []
    assert browser.run(CONTRAST) == []
    browser.messages()

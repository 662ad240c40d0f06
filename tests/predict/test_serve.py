"""A served model: its answers beside those of `predict`, what it refuses, a picture dropped."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.predict.conftest import CLASSES, SIZE, jpeg, noise
from tests.report.browser import (
    AXE,
    CONTRAST,
    LAYOUT,
    browser_in,
    needs_browser,
    serious_faults,
    until,
)
from vision.config.cli import run_main
from vision.predict.predictor import Predictor
from vision.report.server import bind, server
from vision.report.uploads import MAX_UPLOAD
from vision.serve import app as serve_app
from vision.serve.__main__ import main
from vision.serve.batcher import WAITING, Batcher, Full, warm
from vision.serve.page import render


@contextlib.contextmanager
def serving(predictor: Predictor, no_maps: str = "") -> Iterator[str]:
    page, policy = render(predictor, "mine", no_maps)
    batcher = Batcher(predictor, WAITING)
    with bind("127.0.0.1", 0) as bound:
        host, port = bound.getsockname()[:2]
        app = serve_app.application(predictor, batcher, page, policy, no_maps=no_maps)
        running = server(app)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"{host}:{port}"
        finally:
            running.should_exit = True
            thread.join(timeout=20)
            batcher.close()
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(run: Predictor) -> Iterator[str]:
    with serving(run) as found:
        yield found


def ask(
    address: str, path: str, body: bytes | None = None, kind: str = "image/jpeg", **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=60)
    sent = {**headers, **({} if body is None else {"Content-Type": kind})}
    connection.request("GET" if body is None else "POST", path, body, sent)
    answer = connection.getresponse()
    got = answer.read()
    connection.close()
    is_json = answer.getheader("content-type", "").startswith("application/json")
    return answer.status, json.loads(got) if is_json else got


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_the_answer_is_that_of_predict(run: Predictor, address: str):
    encoded = jpeg(noise(7))
    expected = run.predict(encoded)[0]
    status, said = ask(address, "/api/predict?top=2", encoded)
    assert status == 200
    assert said["probabilities"] == pytest.approx(expected.top(2), rel=1e-5)
    assert list(said["probabilities"]) == list(expected.top(2))
    assert list(ask(address, "/api/predict?top=all", encoded)[1]["probabilities"]) == list(
        expected.top(3)
    )
    about = ask(address, "/api/model")[1]
    assert (about["classes"], about["maps"]) == (list(CLASSES), True)


def test_the_map_is_that_of_explain(run: Predictor, address: str):
    encoded = jpeg(noise(8))
    for query, name in (("", None), ("?class=bee,%20queen", "bee, queen")):
        expected = run.explain(encoded, name)
        status, said = ask(address, f"/api/explain{query}", encoded)
        assert status == 200
        assert (said["class"], said["height"], said["width"]) == (expected.class_name, SIZE, SIZE)
        assert said["probability"] == pytest.approx(expected.probability, rel=1e-5)
        np.testing.assert_array_equal(pixels(said["image"]), expected.image)
        np.testing.assert_allclose(pixels(said["heat"]), 255 * expected.heat, atol=0.6)


def test_pictures_that_come_together_are_run_together(run: Predictor, monkeypatch: Any):
    """While one is computed the others gather; each gets its own answer."""
    sizes: list[int] = []
    first, go = threading.Event(), threading.Event()
    predict = Predictor.predict

    def counted(self: Predictor, images: Any, **rest: Any) -> Any:
        sizes.append(len(images))
        first.set()
        assert go.wait(timeout=60)
        return predict(self, images, **rest)

    monkeypatch.setattr(Predictor, "predict", counted)
    encoded = [jpeg(noise(i)) for i in range(6)]
    batcher = Batcher(run, waiting=5)
    try:
        answers = [batcher.predict(encoded[0])]
        assert first.wait(timeout=60)
        answers += [batcher.predict(each) for each in (*encoded[1:], b"no picture")[:5]]
        with pytest.raises(Full):
            batcher.predict(encoded[0])
        assert answers[2].cancel()  # nobody waits for it any more
        go.set()
        rows = [answer.result(timeout=60) for answer in answers if not answer.cancelled()]
    finally:
        go.set()
        batcher.close()
    assert sizes == [1, 4]
    kept = [each for i, each in enumerate(encoded) if i != 2]
    expected = predict(run, kept)
    for row, alone in zip(rows, expected, strict=True):
        assert row.probabilities == pytest.approx(alone.probabilities, rel=1e-4)


def test_fifty_at_once_are_answered_rightly_or_refused(run: Predictor, address: str):
    """One address has fewer connections than that: none is left waiting, and none is mixed up."""
    pictures = [jpeg(noise(20 + i)) for i in range(50)]
    expected = run.predict(pictures).probabilities
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda x: ask(address, "/api/predict?top=all", x), pictures))
    statuses = [status for status, _ in answers]
    assert {*statuses} <= {200, 503}
    assert statuses.count(200) >= 8
    for (status, said), row in zip(answers, expected, strict=True):
        if status == 200:
            got = [said["probabilities"][name] for name in CLASSES]
            np.testing.assert_allclose(got, row, atol=1e-5)
    assert ask(address, "/api/predict", pictures[0])[0] == 200  # and it goes on


def test_one_bad_picture_spoils_no_other(address: str):
    good, bad = jpeg(noise(3)), jpeg(noise(3))[:-200]
    with ThreadPoolExecutor(8) as pool:
        sent = [good, bad] * 4
        found = list(pool.map(lambda each: ask(address, "/api/predict", each), sent))
    assert [status for status, _ in found] == [200, 422] * 4
    assert "damaged" in found[1][1]["error"]


def large_png() -> bytes:
    file = io.BytesIO()
    Image.new("1", (8000, 5000)).save(file, "PNG")
    return file.getvalue()


JPEG = jpeg(noise(1))
REFUSED: dict[str, tuple[str, bytes | None, str, int, str]] = {
    "text": ("/api/predict", b"hello", "text/plain", 415, "Content-Type"),
    "no image": ("/api/predict", b"hello", "image/jpeg", 415, "no image file"),
    "empty": ("/api/predict", b"", "image/jpeg", 415, "no image file"),
    "svg": ("/api/predict", b"<svg/>", "image/svg+xml", 415, "no image file"),
    "much": ("/api/predict", b"\xff" * (MAX_UPLOAD + 1), "image/jpeg", 413, "at most"),
    "many pixels": ("/api/predict", large_png(), "image/png", 413, "8000 x 5000"),
    "top 0": ("/api/predict?top=0", JPEG, "image/jpeg", 400, "top: must be"),
    "top of many digits": ("/api/predict?top=" + "9" * 500, JPEG, "image/jpeg", 400, "top: must"),
    "unknown": ("/api/predict?tpo=1", JPEG, "image/jpeg", 400, "'tpo' is unknown"),
    "no class": ("/api/explain?class=wasp", JPEG, "image/jpeg", 404, "no class 'wasp'"),
    "damaged": ("/api/explain", JPEG[:-200], "image/jpeg", 422, "damaged"),
    "get": ("/api/predict", None, "", 405, "Method"),
    "file": ("/../config.json", None, "", 404, "Not Found"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, address: str):
    path, body, kind, status, said = REFUSED[case]
    got, answer = ask(address, path, body, kind)
    assert (got, list(answer)) == (status, ["error"])
    assert said in answer["error"]


def test_the_manners_are_those_of_the_retrieval_server(address: str):
    assert ask(address, "/", Host="evil.example")[0] == 421
    assert ask(address, "/api/predict", JPEG, Origin="http://evil.example")[0] == 403
    assert ask(address, "/api/predict", JPEG, Origin=f"http://{address}")[0] == 200


def test_an_answer_that_does_not_come(run: Predictor, monkeypatch: Any):
    """The request ends in time, the picture is left out, and the server goes on."""
    monkeypatch.setattr(serve_app, "ANSWER_S", 0.3)
    go, seen = threading.Event(), []
    predict = Predictor.predict

    def slow(self: Predictor, images: Any, **rest: Any) -> Any:
        seen.append(len(images))
        assert go.wait(timeout=60)
        return predict(self, images, **rest)

    with serving(run) as address:
        monkeypatch.setattr(Predictor, "predict", slow)
        try:
            assert ask(address, "/api/predict", JPEG)[0] == 503
            status, answer = ask(address, "/api/predict", JPEG)
            assert (status, "no answer within" in answer["error"]) == (503, True)
        finally:
            go.set()
        monkeypatch.setattr(serve_app, "ANSWER_S", 60.0)
        assert ask(address, "/api/predict", JPEG)[0] == 200
    assert seen == [1, 1]  # the second was cancelled before it began


def test_a_model_without_maps(run: Predictor):
    with serving(run, no_maps="it has no map") as address:
        assert ask(address, "/api/explain", JPEG) == (404, {"error": "it has no map"})
        assert ask(address, "/api/model")[1]["maps"] is False
        assert b"There is no heat map: it has no map" in ask(address, "/")[1]


def test_warm_compiles_what_requests_need(run: Predictor):
    assert warm(run) == ""


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "one of --workdir=... and --model=... is required"),
        (["--workdir=gone", "--port=0"], "gone: no such folder"),
        (["--workdir=gone", "--port=70000"], "at most 65535"),
        (["--workdir=gone", "--host=0.0.0.0"], "--public"),
    ],
)
def test_wrong_flags(flags: list[str], said: str, capfd: pytest.CaptureFixture[str]):
    assert run_main(main, flags) == 2
    assert said in capfd.readouterr().err


DROP = """
const [encoded, name] = arguments;
const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name, { type: "image/jpeg" }));
for (const type of ["dragenter", "dragover", "drop"]) {
  document.querySelector("#drop").dispatchEvent(
    new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: data }));
}
"""
PAINTED = (
    "(() => { const c = document.querySelector('#heat'); if (!c.width) return 0;"
    " const context = c.getContext('2d', { willReadFrequently: true });"
    " return Math.max(...context.getImageData(0, 0, c.width, c.height).data"
    ".filter((_, i) => i % 4 === 3)); })()"
)


@needs_browser
@pytest.mark.slow
def test_a_picture_dropped_on_the_page(run: Predictor, address: str, tmp_path: Path):
    expected = run.predict(JPEG)[0].top(3)
    with browser_in(tmp_path) as browser:
        for scheme, width in (("light", 1400), ("dark", 480)):
            browser.scheme(scheme)
            browser.visit(f"http://{address}/", width)
            browser.run(DROP, base64.b64encode(JPEG).decode(), "mine.jpg")
            until(browser, f"{PAINTED} === 255")  # the map's maximum
            rows = browser.run(
                "return [...document.querySelectorAll('#classes tr')].map(r => r.innerText)"
            )
            assert [row.split("\t")[0] for row in rows] == list(expected)
            assert f"{100 * next(iter(expected.values())):.1f}%" in rows[0]
            assert browser.run(CONTRAST) == []
            assert not AXE.is_file() or serious_faults(browser) == []
            assert browser.run(LAYOUT) == []
            assert "mine.jpg: answered in" in browser.run(
                "return document.querySelector('#status').textContent"
            )
            browser.screenshot(tmp_path / f"{width}.png")
        second = list(expected)[1]
        browser.click("#classes tr:nth-child(2) button")
        until(browser, "document.querySelector('#classes tr:nth-child(2) button').ariaPressed"
                       " === 'true'")  # fmt: skip
        assert f"“{second}”" in browser.run("return document.querySelector('#where').textContent")
        assert browser.messages() == []
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(JPEG[:-200])
        browser.type("#file", str(broken))
        until(browser, "!document.querySelector('#error').hidden")
        assert "damaged" in browser.run("return document.querySelector('#error').textContent")
        chosen = tmp_path / "chosen.png"
        Image.fromarray(noise(4)).save(chosen)
        browser.type("#file", str(chosen))
        until(browser, "document.querySelector('#status').textContent.includes('chosen.png')")
        assert browser.run("return document.querySelector('#error').hidden")

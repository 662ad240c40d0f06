"""The retrieval server among peers that send nothing, too much, or nonsense; no model is run."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vision.data.decode import DecodeError
from vision.report import connections
from vision.report.retrieval_pictures import Prepare
from vision.report.retrieval_server import application
from vision.report.server import bind, server
from vision.report.uploads import MAX_UPLOAD_PIXELS


class Gallery:
    """As much of an ``Index`` as pages without a query ask for."""

    def __len__(self) -> int:
        return 3

    def picture(self, image: int) -> bytes:
        return b"png%d" % image


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connections, "HEADERS_S", 1.0)
    gallery: Any = Gallery()
    with bind("127.0.0.1", 0) as bound:
        running = server(application(gallery, "<p>page", "default-src 'none'"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield bound.getsockname()[:2]
        finally:
            running.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


def status(address: tuple[str, int], path: str = "/", **headers: str) -> int:
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    found = connection.getresponse().status
    connection.close()
    return found


def test_idle_connections_shut_nobody_out(address):
    """70 of them made the server answer 503 to everyone, for as long as they liked."""
    idle = [socket.create_connection(address) for _ in range(70)]
    try:
        deadline = time.monotonic() + 8
        while status(address) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for peer in idle:  # all are closed by the server
            peer.settimeout(8)
            with contextlib.suppress(ConnectionError):
                while peer.recv(4096):
                    pass
    finally:
        for peer in idle:
            peer.close()


def test_connections_beyond_those_of_one_client_are_refused_at_once(address):
    held = [socket.create_connection(address) for _ in range(connections.PER_CLIENT)]
    try:
        time.sleep(0.3)
        with socket.create_connection(address) as late:
            late.settimeout(5)
            assert late.recv(4096).startswith(b"HTTP/1.1 503")
        with socket.create_connection(address) as late:
            late.settimeout(5)
            time.sleep(0.3)  # the answer is there before the request is
            late.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
            late.sendall(b"a picture")
            assert late.recv(4096).startswith(b"HTTP/1.1 503")
    finally:
        for peer in held:
            peer.close()


def test_headers_byte_by_byte_do_not_hold_a_place(address):
    started = time.monotonic()
    with socket.create_connection(address) as peer, contextlib.suppress(ConnectionError):
        for byte in b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + 100 * b"a":
            peer.sendall(bytes([byte]))
            time.sleep(0.1)
    assert time.monotonic() - started < 5


def test_requests_are_answered_after_a_pause(address):
    """The timer is for peers that do not send, not for those that were answered."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    for _ in range(3):
        connection.request("GET", "/image/2")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"png2")
        time.sleep(0.4)
    connection.close()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8008", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1#x", 400),
        ("127.0.0.1/x", 400),
        ("127.0.0.1?x", 400),
        ("x@127.0.0.1", 400),
        ("127.0.0.1:port", 400),
        ("127.0.0.1 ", 200),
        ("evil.example", 421),
    ],
)
def test_host(address, host, expected):
    assert status(address, Host=host) == expected


@pytest.mark.parametrize("path", ["/image/" + 5000 * "9", "/image/x", "/image/-1", "/image/1.5"])
def test_ids_that_are_no_numbers(address, path):
    assert status(address, path) == 400


def test_numbers_of_many_digits(address):
    assert status(address, "/api/gallery?start=" + 5000 * "1") == 400
    assert status(address, "/image/7") == 404
    connection = http.client.HTTPConnection(*address, timeout=10)
    headers = {"Content-Type": "image/png"}
    connection.request("POST", "/api/search?k=" + 5000 * "1", b"x", headers)
    assert connection.getresponse().status == 400
    connection.close()


def test_uploads_of_many_pixels_are_refused_before_they_are_decoded():
    file = io.BytesIO()
    Image.new("1", (8000, 5000)).save(file, "PNG")
    prepare = Prepare({"image": np.zeros((4, 4, 1), np.uint8)}, (), "image", (4, 4, 1))
    assert MAX_UPLOAD_PIXELS < 40_000_000
    with pytest.raises(DecodeError, match="8000"):
        prepare.record(file.getvalue(), MAX_UPLOAD_PIXELS)

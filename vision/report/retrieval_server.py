"""The HTTP side of the retrieval page: one page, its pictures, one JSON endpoint.

Starlette on uvicorn. Every answer but the page and the pictures is JSON; errors are
``{"error": "..."}`` with a status that says what kind of error. Only the names that the server
was started for are answered (a page elsewhere cannot reach it by pointing its own name here), and
requests that come from another page are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jax
import numpy as np

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise ImportError("serving a page needs more packages: pip install 'vision[serve]'") from error

from vision.config.errors import UserError
from vision.data.source import DataError
from vision.report.connections import LimitedConnection
from vision.report.retrieval_index import Index, Query, Ranked
from vision.report.retrieval_pictures import MAX_UPLOAD_PIXELS, kind_of

MAX_SENTENCE = 1000
MAX_JSON = 16 * 1024
MAX_UPLOAD = 8 * 2**20
MAX_K = 100
LIMITS = {"sentence": MAX_SENTENCE, "upload": MAX_UPLOAD, "pixels": MAX_UPLOAD_PIXELS, "k": MAX_K}
_BODY_S = 20.0
# A ``Host`` header (RFC 9110): an address in brackets, or a name or address; perhaps a port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
_WAITING = 8
_COSINES = 600_000  # in one answer


def application(index: Index, page: str, policy: str, host: str = "127.0.0.1") -> Any:
    """The ASGI application.

    Args:
      index: what is searched.
      page: HTML for ``/``.
      policy: its content security policy.
      host: the name or address that the server is bound to; see ``allowed``.
    """
    service = _Service(index, page)
    app = Starlette(
        routes=[
            Route("/", service.root),
            Route("/favicon.ico", service.icon),
            Route("/image/{image}", service.image),
            Route("/api/gallery", service.gallery),
            Route("/api/search", service.search, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    return _Guard(app, policy, host)


def allowed(name: str, host: str) -> bool:
    """Whether a server bound to ``host`` answers to the ``Host`` header ``name``.

    It does to ``host`` and ``localhost`` and to addresses: loopback ones only where it is bound to
    loopback. Other names could be pointed here by whoever owns them (DNS rebinding).
    """
    if (parts := _HOST.fullmatch(name)) is None:
        return False
    hostname = (parts[1] or parts[2]).lower()
    if hostname in ("localhost", host.lower()):
        return True
    try:
        address = ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return address.is_loopback or not is_loopback(host)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServerError(UserError):
    """The page cannot be served there."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
      ServerError: no such address here, or the port is taken.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(64)
    except OSError as error:
        raise ServerError(
            f"--host={host} --port={port}: {error.strerror}; --port=0 takes a free port"
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def server(app: Any) -> uvicorn.Server:
    """``run(sockets=[...])`` serves until SIGINT, SIGTERM or ``should_exit``."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=LimitedConnection,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=16 * 1024,
    )
    return uvicorn.Server(config)


class _Service:
    def __init__(self, index: Index, page: str) -> None:
        self._index = index
        self._page = page
        self._model = threading.Lock()  # one query at a time: they share the devices
        self._waiting = 0
        self._pictures: dict[int, bytes] = {}

    async def root(self, request: Request) -> Response:
        return HTMLResponse(self._page)

    async def icon(self, request: Request) -> Response:
        return Response(status_code=204)

    async def image(self, request: Request) -> Response:
        image = _number(request.path_params["image"], "image", 0, 2**31)
        if image >= len(self._index):
            raise HTTPException(404, f"no image {image}; there are {len(self._index)}")
        png = self._pictures.get(image)
        if png is None:
            try:
                png = await run_in_threadpool(self._index.picture, image)
            except DataError as error:
                raise HTTPException(404, str(error)) from error
            if len(self._pictures) >= 2048:
                self._pictures.clear()
            self._pictures[image] = png
        return Response(png, media_type="image/png")

    async def gallery(self, request: Request) -> Response:
        size = len(self._index)
        start = _number(request.query_params.get("start", "0"), "start", 0, size)
        count = _number(request.query_params.get("count", "24"), "count", 1, MAX_K)
        chosen = range(start, min(size, start + count))
        return JSONResponse({"images": [self._image(i) for i in chosen], "total": size})

    async def search(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            asked = _checked_query(_parsed(await _body(request, MAX_JSON, "a JSON query")))
            encoded = b""
        elif kind in ("image/jpeg", "image/png"):
            params = dict(request.query_params)
            k = params.get("k", "24")
            asked = _checked_query({**params, "k": _number(k, "k", 1, MAX_K)})
            if asked["image"] is not None:
                raise HTTPException(400, "image: a body that is a picture takes its place")
            encoded = await _body(request, MAX_UPLOAD, "a picture")
            if kind_of(encoded) is None:
                raise HTTPException(415, "the body is neither a JPEG nor a PNG file")
        else:
            raise HTTPException(
                415, "Content-Type: application/json, image/jpeg or image/png is understood"
            )
        if asked["image"] is not None and asked["image"] >= len(self._index):
            raise HTTPException(404, f"no image {asked['image']}; there are {len(self._index)}")
        if self._waiting >= _WAITING:
            raise HTTPException(503, f"{_WAITING} queries are waiting already; try again")
        self._waiting += 1
        try:
            return JSONResponse(await run_in_threadpool(self._answer, encoded=encoded, **asked))
        except DataError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            self._waiting -= 1

    def _answer(self, text: str, image: int | None, k: int, encoded: bytes) -> dict[str, Any]:
        index, start = self._index, time.perf_counter()
        with self._model, jax.set_mesh(index.run.mesh):
            query = index.ask(text, image, encoded)
            images = index.rank_images(query, k)
            captions = index.rank_captions(query, k) if query.text is None else None
        return {
            "query": self._query(query),
            "grid": index.grid,
            "images": {**_scale(images, len(index)), "results": self._images(query, images)},
            "captions": captions
            and {
                **_scale(captions, len(index.ids)),
                "results": self._captions(query, captions),
            },
            "ms": round(1000 * (time.perf_counter() - start)),
        }

    def _image(self, image: int) -> dict[str, Any]:
        captions = [self._index.captions[i] for i in self._index.captions_of(image)]
        return {"image": image, "key": self._index.key(image), "captions": captions}

    def _query(self, query: Query) -> dict[str, Any]:
        description: dict[str, Any] = {"image": query.stored, "cut": query.cut}
        if query.text is not None and query.ids is not None:
            description["read_as"] = self._index.tokenizer.decode(query.ids[None])[0]
            if self._index.grid:
                description["words"] = self._index.words(query.ids, query.text)
        return description

    def _images(self, query: Query, ranked: Ranked) -> list[dict[str, Any]]:
        results = []
        for place, (image, score) in enumerate(_pairs(ranked), 1):
            is_known = image in ranked.known
            results.append({"rank": place, "score": score, "own": is_known, **self._image(image)})
        if self._index.grid and query.text is not None and query.image is None:
            cosines_left = _COSINES
            for result in results:
                image = result["image"]
                features = {name: x[image : image + 1] for name, x in self._index.images.items()}
                cosines = self._index.match(features, query.text)[0]
                cosines_left -= cosines.size
                result["match"] = _thousandths(cosines) if cosines_left >= 0 else None
        return results

    def _captions(self, query: Query, ranked: Ranked) -> list[dict[str, Any]]:
        index, results, cosines_left = self._index, [], _COSINES
        for place, (caption, score) in enumerate(_pairs(ranked), 1):
            result = {
                "rank": place,
                "score": score,
                "own": caption in ranked.known,
                "text": index.captions[caption],
                "image": int(index.owner[caption]),
            }
            if index.grid and query.image is not None:
                features = {name: x[caption : caption + 1] for name, x in index.texts.items()}
                cosines = index.match(query.image, features)[0]
                cosines_left -= cosines.size
                result["words"] = index.words(index.ids[caption], features)
                result["match"] = _thousandths(cosines) if cosines_left >= 0 else None
            results.append(result)
        return results


def _pairs(ranked: Ranked) -> list[tuple[int, float]]:
    return list(zip(ranked.items.tolist(), ranked.scores.tolist(), strict=True))


def _scale(ranked: Ranked, total: int) -> dict[str, Any]:
    known = [{"item": item, "rank": place} for item, place in ranked.known.items()]
    return {"lowest": ranked.lowest, "total": total, "known": known}


def _thousandths(cosines: np.ndarray) -> list[list[int]]:
    return np.rint(1000 * cosines).astype(int).tolist()


def _checked_query(query: Any) -> dict[str, Any]:
    """``text``, ``image`` and ``k`` of a query, checked."""
    if not isinstance(query, dict):
        raise HTTPException(400, 'a query is a JSON object such as {"text": "a dog", "k": 12}')
    if unknown := sorted(query.keys() - {"text", "image", "k"}):
        raise HTTPException(400, f"{unknown[0][:40]!r} is unknown; a query has text, image and k")
    text, image, k = query.get("text", ""), query.get("image"), query.get("k", 24)
    if not isinstance(text, str):
        raise HTTPException(400, "text: must be a string")
    text = text.strip()
    if len(text) > MAX_SENTENCE:
        raise HTTPException(400, f"text: {len(text)} characters, at most {MAX_SENTENCE}")
    if any("\ud800" <= c <= "\udfff" or c == "\0" for c in text):
        raise HTTPException(400, "text: holds NUL or half a surrogate pair")
    if image is not None:
        image = _number(image, "image", 0, 2**31)
    return {"text": text, "image": image, "k": _number(k, "k", 1, MAX_K)}


def _number(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise HTTPException(400, f"{name}: must be a whole number, {low} to {high}")
    return value


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}"[:200]) from error


async def _body(request: Request, most: int, what: str) -> bytes:
    too_large = HTTPException(413, f"{what} has at most {most} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive in {_BODY_S:.0f} s") from error
    return b"".join(parts)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    # The error goes on to uvicorn, which writes it to the terminal.
    return JSONResponse({"error": "the server failed; its terminal says why"}, 500)


class _Guard:
    """Refuses foreign names and pages, and adds the headers that every answer has."""

    def __init__(self, app: Any, policy: str, host: str) -> None:
        self._app = app
        self._host = host
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(
        self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        headers = dict(scope["headers"])
        name, origin = (headers.get(key, b"").decode("latin-1") for key in (b"host", b"origin"))
        app = self._app
        if _HOST.fullmatch(name) is None:
            app = JSONResponse({"error": f"Host: {name[:100]!r} is no name or address"}, 400)
        elif not allowed(name, self._host):
            app = JSONResponse({"error": f"this server does not answer to {name[:100]!r}"}, 421)
        elif origin and origin not in (f"http://{name}", f"https://{name}"):
            app = JSONResponse({"error": f"requests from {origin[:100]} are refused"}, 403)
        await app(scope, receive, with_headers)

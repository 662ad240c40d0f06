"""The manners of this library's small servers: whom they answer, how much, and for how long.

Starlette on uvicorn. Every answer but pages and pictures is JSON; errors are ``{"error": "..."}``
with a status that says what kind of error. Only the names that a server was started for are
answered (a page elsewhere cannot reach it by pointing its own name here), and requests that come
from another page are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from vision.config.cli import UsageError, whole_number
from vision.config.errors import UserError
from vision.config.extras import pip_install

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool as run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise UsageError(f"serving a page needs more packages: {pip_install('serve')}") from error

from vision.report.connections import LimitedConnection

BODY_S = 20.0
# A ``Host`` header (RFC 9110): an address in brackets, or a name or address; perhaps a port.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


def application(routes: Sequence[Route], page: str, policy: str, host: str = "127.0.0.1") -> Any:
    """The ASGI application.

    Args:
      routes: beside those of the page and its icon.
      page: HTML for ``/``.
      policy: its content security policy.
      host: the name or address that the server is bound to; see ``allowed``.
    """

    async def root(request: Request) -> Response:
        return HTMLResponse(page)

    async def icon(request: Request) -> Response:
        return Response(status_code=204)

    app = Starlette(
        routes=[Route("/", root), Route("/favicon.ico", icon), *routes],
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


def listening(options: SimpleNamespace, default: int, shown: str) -> tuple[str, int]:
    """The host and port of a command line with ``port``, ``host`` and ``public``.

    Args:
      options: of ``parse``.
      default: port.
      shown: what other machines would see, for the message.

    Raises:
      UsageError: no port, or a host that others can reach without ``--public``.
    """
    host = str(options.host or "127.0.0.1")
    port = default if options.port is False else whole_number("port", options.port)
    if port > 65535:
        raise UsageError(f"--port={port}: at most 65535")
    if not is_loopback(host) and not options.public:
        raise UsageError(
            f"--host={host} would show {shown} to other machines, without a password: add "
            "--public if that is meant, or reach this machine through ssh -L"
        )
    return host, port


def run(app: Any, bound: socket.socket, host: str, called: str, shown: str) -> None:
    """Says where the page is and serves it until Ctrl-C or SIGTERM.

    Args:
      app: of ``application``.
      bound: of ``bind``.
      host: that it was bound to.
      called: the page, in words.
      shown: what visitors see, for the warning.
    """
    address = address_of(bound)
    if not is_loopback(host):
        print(f"WARNING: --public: WHOEVER REACHES {address} SEES {shown.upper()}", flush=True)
    print(f"{called}: {address}  (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server(app).run(sockets=[bound])


def number(value: Any, name: str, low: int, high: int) -> int:
    """A whole number of a query or of JSON; else 400."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise HTTPException(400, f"{name}: must be a whole number, {low} to {high}")
    return value


def parsed(body: bytes) -> Any:
    """A JSON body; else 400."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}"[:200]) from error


async def read_body(request: Request, most: int, what: str) -> bytes:
    """A request's body of at most ``most`` bytes; else 413, or 408 where it comes too slowly."""
    too_large = HTTPException(413, f"{what} has at most {most} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive in {BODY_S:.0f} s") from error
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

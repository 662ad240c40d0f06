"""Limits of single connections for a small public page: late headers, idle peers, one client.

uvicorn counts connections and closes those that are idle after an answer. A peer that connects and
sends nothing, or a header byte by byte, keeps its place for ever, and some 60 of them are all.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 8.0
LINGER_S = 2.0
PER_CLIENT = 24


class LimitedConnection(H11Protocol):
    """Closes a connection without a complete request for ``HEADERS_S`` seconds.

    Of one address ``PER_CLIENT`` connections are served at a time; others are answered 503 at once,
    take nobody's place, and are closed by their peer or after ``LINGER_S`` seconds: closed at once,
    what the peer is still sending would reset the connection before it has read the answer.
    """

    _timer: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        others: set[Any] = set(self.connections)
        same = sum(_address(other.client) == _address(self.client) for other in others)
        if same > PER_CLIENT:
            # A place is free again at once, whatever the peer does with its end.
            self.connections.discard(self)
            body = b'{"error": "too many connections from this address"}'
            head = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n"
            head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            transport.write(head + body)
            transport.write_eof()
            self._refused = True
            self._timer = self.loop.call_later(LINGER_S, self._late)
            return
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        super().data_received(data)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        """Starts the timer where no request is being answered; data do not prolong it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADERS_S, self._late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        self.transport.abort()


def _address(client: tuple[str, int] | None) -> str:
    return client[0] if client else ""

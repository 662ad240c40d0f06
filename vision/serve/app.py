"""The endpoints of a served model: what it says of a picture, and where in it it saw that."""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
from PIL import Image

from vision.data.decode import FORMATS
from vision.data.source import DataError
from vision.predict.explain import Explanation
from vision.predict.predictor import Predictor
from vision.report import server
from vision.report.page import inline_picture
from vision.report.server import (
    HTTPException,
    JSONResponse,
    Request,
    Response,
    Route,
    number,
    read_body,
)
from vision.report.uploads import MAX_UPLOAD, MAX_UPLOAD_PIXELS
from vision.serve.batcher import WAITING, Batcher, Full

ANSWER_S = 60.0
TOP = 5
LIMITS = {"upload": MAX_UPLOAD, "pixels": MAX_UPLOAD_PIXELS, "waiting": WAITING}


def application(
    predictor: Predictor,
    batcher: Batcher,
    page: str,
    policy: str,
    host: str = "127.0.0.1",
    no_maps: str = "",
) -> Any:
    """The ASGI application.

    Args:
      predictor: the model, which has classes.
      batcher: runs it.
      page: HTML for ``/``.
      policy: its content security policy.
      host: the name or address that the server is bound to; see ``server.allowed``.
      no_maps: why the model has no maps; empty where it has.
    """
    service = _Service(predictor, batcher, no_maps)
    routes = [
        Route("/api/model", service.model),
        Route("/api/predict", service.predict, methods=["POST"]),
        Route("/api/explain", service.explain, methods=["POST"]),
    ]
    return server.application(routes, page, policy, host)


class _Service:
    def __init__(self, predictor: Predictor, batcher: Batcher, no_maps: str) -> None:
        self._predictor = predictor
        self._batcher = batcher
        self._no_maps = no_maps

    async def model(self, request: Request) -> Response:
        return JSONResponse(
            {
                "source": self._predictor.source,
                "classes": self._predictor.classes,
                "preprocessing": str(self._predictor.preprocessing),
                "maps": not self._no_maps,
                "limits": LIMITS,
            }
        )

    async def predict(self, request: Request) -> Response:
        _known(request, ("top",))
        asked, count = request.query_params.get("top", str(TOP)), len(self._predictor.classes)
        top = count if asked == "all" else number(asked, "top", 1, 2**31)
        started = time.perf_counter()
        row = await self._answered(self._batcher.predict, await _picture(request))
        if row.error is not None:
            raise HTTPException(422, row.error)
        return JSONResponse({"probabilities": row.top(top), "ms": _milliseconds(started)})

    async def explain(self, request: Request) -> Response:
        _known(request, ("class",))
        if self._no_maps:
            raise HTTPException(404, self._no_maps)
        name = request.query_params.get("class")
        if name is not None and name not in self._predictor.classes:
            raise HTTPException(404, f"no class {name[:100]!r}; GET /api/model lists them")
        started = time.perf_counter()
        encoded = await _picture(request)
        try:
            found = await self._answered(self._batcher.explain, encoded, name)
        except DataError as error:
            raise HTTPException(422, str(error).removeprefix("image 0: ")) from error
        return JSONResponse({**_map(found), "ms": _milliseconds(started)})

    async def _answered(self, ask: Any, *asked: Any) -> Any:
        try:
            answer: Future[Any] = ask(*asked)
        except Full:
            raise HTTPException(
                503, f"{WAITING} pictures are waiting already; try again", {"retry-after": "1"}
            ) from None
        try:
            # Beyond the time the answer is cancelled, and one that has not begun is left out.
            return await asyncio.wait_for(asyncio.wrap_future(answer), ANSWER_S)
        except (TimeoutError, asyncio.CancelledError) as error:
            raise HTTPException(503, f"no answer within {ANSWER_S:.0f} s; try again") from error


def _known(request: Request, names: tuple[str, ...]) -> None:
    for name in request.query_params:
        if name not in names:
            raise HTTPException(400, f"{name[:40]!r} is unknown; known: {', '.join(names)}")


async def _picture(request: Request) -> bytes:
    """A body that is an image file of a bearable size, by its header; else 413, 415 or 422."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind != "application/octet-stream":
        raise HTTPException(
            415, "the body is an image file, with Content-Type: image/jpeg, image/png, ..."
        )
    encoded = await read_body(request, MAX_UPLOAD, "a picture")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as header:
            width, height = header.size
    except Exception as error:  # Pillow raises nearly every built-in type on hostile bytes
        raise HTTPException(
            415, f"the body is no image file that is read here: {', '.join(FORMATS)}"
        ) from error
    if width * height > MAX_UPLOAD_PIXELS:
        raise HTTPException(
            413, f"{width} x {height} pixels; a picture has at most {MAX_UPLOAD_PIXELS:,}"
        )
    return encoded


def _map(found: Explanation) -> dict[str, Any]:
    image = found.image if found.image.shape[2] == 3 else found.image.mean(2).astype(np.uint8)
    height, width = found.heat.shape
    return {
        "class": found.class_name,
        "probability": found.probability,
        "height": height,
        "width": width,
        "image": _png(image),
        "heat": _png(np.rint(255 * found.heat).astype(np.uint8)),
    }


def _png(pixels: np.ndarray) -> str:
    """A ``data:`` address of uint8 [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return inline_picture(buffer.getvalue())


def _milliseconds(started: float) -> int:
    return round(1000 * (time.perf_counter() - started))

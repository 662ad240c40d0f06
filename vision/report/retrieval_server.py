"""The HTTP side of the retrieval page: its pictures, and one JSON endpoint.

Hosts, bodies, errors and connections are those of ``vision.report.server``.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import jax
import numpy as np

from vision.data.source import DataError
from vision.report import server
from vision.report.retrieval_index import Index, Query, Ranked
from vision.report.retrieval_pictures import kind_of
from vision.report.server import (
    HTTPException,
    JSONResponse,
    Request,
    Response,
    Route,
    number,
    parsed,
    read_body,
    run_in_threadpool,
)
from vision.report.uploads import MAX_UPLOAD, MAX_UPLOAD_PIXELS

MAX_SENTENCE = 1000
MAX_JSON = 16 * 1024
MAX_K = 100
LIMITS = {"sentence": MAX_SENTENCE, "upload": MAX_UPLOAD, "pixels": MAX_UPLOAD_PIXELS, "k": MAX_K}
_WAITING = 8
_COSINES = 600_000  # in one answer


def application(index: Index, page: str, policy: str, host: str = "127.0.0.1") -> Any:
    """The ASGI application.

    Args:
      index: what is searched.
      page: HTML for ``/``.
      policy: its content security policy.
      host: the name or address that the server is bound to; see ``server.allowed``.
    """
    service = _Service(index)
    routes = [
        Route("/image/{image}", service.image),
        Route("/api/gallery", service.gallery),
        Route("/api/search", service.search, methods=["POST"]),
    ]
    return server.application(routes, page, policy, host)


class _Service:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._model = threading.Lock()  # one query at a time: they share the devices
        self._waiting = 0
        self._pictures: dict[int, bytes] = {}

    async def image(self, request: Request) -> Response:
        image = number(request.path_params["image"], "image", 0, 2**31)
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
        start = number(request.query_params.get("start", "0"), "start", 0, size)
        count = number(request.query_params.get("count", "24"), "count", 1, MAX_K)
        chosen = range(start, min(size, start + count))
        return JSONResponse({"images": [self._image(i) for i in chosen], "total": size})

    async def search(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            asked = _checked_query(parsed(await read_body(request, MAX_JSON, "a JSON query")))
            encoded = b""
        elif kind in ("image/jpeg", "image/png"):
            params = dict(request.query_params)
            k = params.get("k", "24")
            asked = _checked_query({**params, "k": number(k, "k", 1, MAX_K)})
            if asked["image"] is not None:
                raise HTTPException(400, "image: a body that is a picture takes its place")
            encoded = await read_body(request, MAX_UPLOAD, "a picture")
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
        image = number(image, "image", 0, 2**31)
    return {"text": text, "image": image, "k": number(k, "k", 1, MAX_K)}

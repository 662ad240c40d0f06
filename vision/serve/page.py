"""The HTML of the page on which one drops a picture; its script asks the server."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from vision.predict.predictor import Predictor
from vision.report.live_page import live_page
from vision.report.page import note, tag
from vision.serve.app import LIMITS, TOP

_HERE = Path(__file__).parent


def render(predictor: Predictor, name: str, no_maps: str = "") -> tuple[str, str]:
    """The page and the content security policy that it needs.

    Args:
      predictor: the model.
      name: of the run.
      no_maps: why the model has no maps; empty where it has.
    """
    count = len(predictor.classes)
    about = f"{predictor.source} · {count:,} classes"
    content = [
        _form(),
        tag("p", "", id="error", class_="note warning", role="alert", hidden=True),
        tag("p", "", id="status", class_="note", role="status"),
        _answer(no_maps),
        _details(predictor),
    ]
    return live_page(
        f"What {name} sees",
        about,
        content,
        style=(_HERE / "serve.css").read_text(encoding="utf-8"),
        script=(_HERE / "serve.js").read_text(encoding="utf-8"),
        shared={"limits": LIMITS, "top": min(TOP, count), "maps": not no_maps, "count": count},
        images="'self' blob: data:",
    )


def _form() -> Markup:
    return tag(
        "div",
        tag(
            "label",
            tag("strong", "Drop a picture here"),
            tag("span", "or click to choose one, or paste it", class_="hint"),
            for_="file",
        ),
        tag("input", id="file", type="file", accept="image/*"),
        id="drop",
    )


def _answer(no_maps: str) -> Markup:
    slider = tag(
        "p",
        tag("label", "Heat map", for_="strength"),
        tag("input", id="strength", type="range", min="0", max="100", value="65"),
        class_="strength",
    )
    picture = tag(
        "figure",
        tag(
            "div", tag("img", id="seen", alt=""), tag("canvas", id="heat", aria_hidden="true"),
            class_="frame",
        ),
        tag("figcaption", "", id="where"),
        "" if no_maps else slider,
        class_="card",
    )  # fmt: skip
    table = tag(
        "table",
        tag("caption", "Press a class to see where its evidence lies." if not no_maps else ""),
        tag(
            "thead",
            tag(
                "tr",
                tag("th", "Class", scope="col"),
                tag("th", "Probability", scope="col", class_="n"),
                tag("th", tag("span", "Bar", class_="unseen"), scope="col"),
            ),
        ),
        tag("tbody", id="classes"),
    )
    more = tag("button", "All classes", type="button", id="all", hidden=True)
    said = tag("div", tag("h2", "Classes"), table, more, class_="card")
    without = note(f"There is no heat map: {no_maps}") if no_maps else ""
    return tag("div", picture, said, without, id="answer", hidden=True)


def _details(predictor: Predictor) -> Markup:
    example = (
        "curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg 'ADDRESS/api/predict?top=3'"
    )
    return tag(
        "details",
        tag("summary", "Preprocessing, and asking from a program"),
        note(f"Preprocessing: {predictor.preprocessing}."),
        tag("pre", example, id="curl", tabindex="0"),
        note("The picture is not kept. /api/explain answers with the heat map of a class."),
        id="details",
    )

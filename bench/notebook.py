"""Runs docs/tour.ipynb from its first cell to its last and keeps what each showed.

    python -m bench.notebook

In this process, in a new folder: what is printed, and what the last line of a cell is, as a picture
where it is one. Nothing of Jupyter is needed. tests/predict/test_notebook.py does the same and
compares.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb"


def run(cells: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The outputs of every cell of code, in the format of notebooks.

    Raises:
      Exception: what a cell raises.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    found = []
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        shown = None
        match tree.body:
            case [*_, ast.Expr(value=last)]:
                shown = ast.Expression(last)
                tree.body.pop()
            case _:
                pass
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, PAGE.name, "exec"), names)
            value = eval(compile(shown, PAGE.name, "eval"), names) if shown else None
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            text = printed.getvalue().splitlines(keepends=True)
            outputs.append({"output_type": "stream", "name": "stdout", "text": text})
        if value is not None:
            outputs.append(_shown(value, len(found) + 1))
        found.append(outputs)
    return found


def _shown(value: Any, count: int) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": [repr(value)]}
    if (draw := getattr(value, "_repr_png_", None)) is not None:
        data["image/png"] = base64.b64encode(draw()).decode()
    return {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}


def main() -> None:
    notebook = json.loads(PAGE.read_text(encoding="utf-8"))
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            found = run(notebook["cells"])
        finally:
            os.chdir(before)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for i, (cell, outputs) in enumerate(zip(code, found, strict=True)):
        cell["outputs"], cell["execution_count"] = outputs, i + 1
    PAGE.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Python of the documents that no other test runs: it runs, and names what is there.

The tutorial, predict, data and "Add your own" have tests of their own. What stands here are parts
of configs: ``spec`` compares each with the signature of what it names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import vision
from vision.config.schema import ConfigError
from vision.config.specs import is_spec
from vision.weights.preprocessing import Preprocessing

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("evaluation", "finetuning", "loggers", "objectives", "scaling", "weights", "zoo")
# Names that a page has explained before.
GIVEN: dict[str, Any] = {"SOURCE": "zoo:emoji_cnn", "CARD": Preprocessing(size=(32, 32))}
# They run elsewhere: tests/weights/test_packages.py.
ELSEWHERE = ("vision.load(",)


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [block for block in found if not any(each in block for each in ELSEWHERE)]


class Names(dict[str, Any]):
    """What a config has imported: everything of ``vision``, under its name."""

    def __missing__(self, name: str) -> Any:
        if name == "v":
            return vision
        try:
            return getattr(vision, name)
        except AttributeError:
            raise KeyError(name) from None


def specs_of(value: Any) -> Iterator[Any]:
    if is_spec(value):
        yield value
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from specs_of(each)


def _spec(what: Any, *rest: Any, **fields: Any) -> Any:
    """``spec``, for which three dots stand for what a reader fills in."""
    return vision.spec(what, *(x for x in rest if x is not ...), **fields)


def made(block: str) -> list[Any]:
    """The specs that a block leaves in its names, or makes as its last expression."""
    tree = ast.parse(block)
    if isinstance(last := tree.body[-1], ast.Expr):
        tree.body[-1] = ast.copy_location(
            ast.Assign([ast.Name("_last", ast.Store(), lineno=1, col_offset=0)], last.value), last
        )
    ast.fix_missing_locations(tree)
    names = Names(GIVEN)
    names["spec"] = _spec
    exec(compile(tree, "block", "exec"), names)
    return list(specs_of({name: x for name, x in names.items() if name not in GIVEN}))


@pytest.mark.parametrize("page", PAGES)
def test_parts_of_configs_are_right(page: str):
    for block in blocks(page):
        assert made(block) or "spec(" not in block, block


def test_a_block_that_names_what_is_not_there_is_found():
    with pytest.raises(NameError, match="ViTT"):
        made("model = spec(ViTT, depth=3)")
    with pytest.raises(ConfigError, match="dpeth"):
        made("model = spec(ViT, dpeth=3)")


def test_a_study_is_read_with_optunas_own_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "workdirs" / "search"
    folder.mkdir(parents=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.create_study(study_name="sweep", storage=storage)
    study.optimize(lambda trial: trial.suggest_float("rate", 0.5, 0.5), n_trials=1)
    (block,) = blocks("sweep")
    exec(compile(block, "docs/sweep.md", "exec"), {})
    assert "{'rate': 0.5}" in capsys.readouterr().out

"""Modes of a config file: ``x.py:small,rival=cutmix`` calls its ``small(rival="cutmix")``.

What stands after the colon is a call. The first word is a function of the file if it has one of
that name, otherwise it is the first argument of ``get_config``; the words after it are
``name=value``, and a first word of that form is an argument of ``get_config``, too. Commas within
brackets part nothing. Values are read as the types that the function declares, as in
``--config.key=value``.

The functions of a file that can be called so are those that it defines itself, that do not begin
with an underscore and whose return annotation is ``Config``; ``get_config`` needs none.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import ml_collections

from vision.config.hints import is_spec, resolved
from vision.config.schema import ConfigError, kind, nearest, parameters, parse

Config = ml_collections.ConfigDict
_ARGUMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def call(module: ModuleType, text: str, file: str) -> Config:
    """The config that a mode of a config file gives.

    Args:
      module: the config file, run.
      text: the mode, after the colon; empty for ``get_config()``.
      file: its path, for messages.

    Raises:
      ConfigError: no such function or argument, a value that does not fit, a missing argument, or
        a function that returns no spec. What the function itself raises passes through.
    """
    where = f"{file}:{text}" if text else file
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ConfigError(f"{file} has no function get_config()")
    modes = functions(module)
    words = split(text) if text else []
    function, arguments = get_config, {}
    if words and words[0] in modes:
        function = modes[words.pop(0)]
    elif words and not _ARGUMENT.fullmatch(words[0]):
        name, value = _first(module, get_config, words.pop(0), where)
        arguments[name] = value
    accepted = parameters(function)
    for word in words:
        match = _ARGUMENT.fullmatch(word)
        if match is None:
            example = next((name for name in accepted if name not in arguments), "name")
            raise ConfigError(f"{where}: {word!r} needs a name, as in {example}={word}")
        name, value = match.groups()
        if name not in accepted:
            near = nearest(name, list(accepted)) or "; it has none"
            raise ConfigError(f"{where}: {function.__name__} has no argument {name!r}{near}")
        if name in arguments:
            raise ConfigError(f"{where}: {name} is given twice")
        arguments[name] = parse(value, accepted[name].hint, f"{where}: {name} is {value!r}")
    missing = [k for k, p in accepted.items() if p.required and k not in arguments]
    if missing:
        raise ConfigError(f"{where}: {function.__name__} needs {', '.join(missing)}")
    config = function(**arguments)
    if not is_spec(config):
        raise ConfigError(f"{file}: {function.__name__}() returns a spec(...), not {kind(config)}")
    return config


def functions(module: ModuleType) -> dict[str, Callable[..., Config]]:
    """Name to function of every mode that a config file has; see this module."""
    return {
        name: value
        for name, value in vars(module).items()
        if _is_own(module, name) and (name == "get_config" or _returns_config(value))
    }


def _is_own(module: ModuleType, name: str) -> bool:
    value = vars(module).get(name)
    is_defined_here = inspect.isfunction(value) and value.__module__ == module.__name__
    return is_defined_here and not name.startswith("_")


def _returns_config(function: Callable[..., Any]) -> bool:
    return resolved(inspect.signature(function).return_annotation, function) is Config


def _first(
    module: ModuleType, get_config: Callable[..., Any], word: str, where: str
) -> tuple[str, Any]:
    """The first parameter of ``get_config`` and what ``word`` is as its value."""
    accepted = parameters(get_config)
    reason = ""
    if accepted:
        name, parameter = next(iter(accepted.items()))
        try:
            return name, parse(word, parameter.hint, f"{name} of get_config")
        except ConfigError as error:
            reason = f", nor {error}"
    if _is_own(module, word):
        raise ConfigError(f"{where}: {word}() is no mode: its return annotation is not Config")
    modes = functions(module)
    shown = ", ".join(f"{name}({', '.join(parameters(each))})" for name, each in modes.items())
    near = nearest(word, list(modes)).partition("; valid")[0]
    raise ConfigError(f"{where}: {word!r} is no function of the file{reason}{near}; it has {shown}")


def split(text: str) -> list[str]:
    """Parts a text at its commas, but not within brackets."""
    words, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            words.append("")
        else:
            words[-1] += letter
    return words

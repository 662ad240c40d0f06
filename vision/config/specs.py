"""Configs: Python that names constructors, checked against their signatures.

``spec(ViT, variant="S/16")`` stores the import path and every keyword argument, defaults
included, in an ``ml_collections.ConfigDict``; ``build`` calls the constructor. The signature is
the schema: a key it does not have, a value of another type or a missing argument is an error that
names the key, the place and the nearest valid key, before anything is compiled.

A config file defines ``get_config()``, which returns ``spec(Experiment, ...)``, and more such
functions for its variants: ``--config=x.py:small,n=2`` calls ``small(n=2)``, see ``config.modes``.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from vision.config import config_files, modes, own_modules
from vision.config.guesses import cannot_replace, did_you_mean
from vision.config.hints import CONSTRUCTOR, is_spec, misfit
from vision.config.modes import Config
from vision.config.schema import (
    ConfigError,
    Parameter,
    current_name,
    definition,
    kind,
    locate,
    nearest,
    parameters,
    parse,
    public_path,
    unknown_key,
)


def spec(constructor: Callable[..., Any], /, *positional: Any, **kwargs: Any) -> Config:
    """The config node that ``build`` turns into ``constructor(**kwargs)``.

    Raises:
      ConfigError: an unknown keyword, a value of a wrong type, an argument without its name, or
        something else than a class or function.
    """
    where = _caller()
    if not hasattr(constructor, "__qualname__"):
        raise ConfigError(
            f"{where}: spec() takes a class or function first, not {kind(constructor)}"
        )
    accepted = parameters(constructor)
    if positional:
        names = ", ".join(f"{key}=..." for key in list(accepted)[: len(positional)])
        raise ConfigError(f"{where}: spec({constructor.__name__}, {names}): arguments need names")
    name = constructor.__name__
    for key, value in kwargs.items():
        if key not in accepted:
            raise ConfigError(f"{where}: {unknown_key(key, accepted, constructor)}")
        _check(value, accepted[key].hint, f"{name}.{key}", where)
    node = ml_collections.ConfigDict()
    node[CONSTRUCTOR] = public_path(constructor)
    for key, value in kwargs.items():
        node[key] = _freeze(value)
    _fill(node, accepted)
    return node


def with_defaults(config: Any) -> Any:
    """A config as it would be written today.

    Constructors and parameters have their names of today (``vision.config.old_names``; ConfigError
    where one is gone with what it did), and parameters that came later have their defaults.
    """
    if isinstance(config, (list, tuple)):
        return tuple(with_defaults(item) for item in config)
    if not isinstance(config, ml_collections.ConfigDict):
        return config
    node = ml_collections.ConfigDict()
    constructor = locate(config[CONSTRUCTOR]) if is_spec(config) else None
    path = public_path(constructor) if constructor is not None else ""
    for key, value in config.items():
        name = current_name(path, key, value)
        if name is not None:
            node[name] = with_defaults(value)
    if constructor is not None:
        node[CONSTRUCTOR] = path
        _fill(node, parameters(constructor))
    return node


def without_defaults(config: Any) -> Any:
    """Inverse of ``with_defaults``, as JSON values: specs hold what differs from the defaults."""
    if isinstance(config, (list, tuple)):
        return [without_defaults(item) for item in config]
    if not isinstance(config, ml_collections.ConfigDict):
        return config
    usual = defaults(locate(config[CONSTRUCTOR])) if is_spec(config) else {}
    plain = {key: without_defaults(value) for key, value in config.items()}
    # As texts: 1, 1.0 and True are different values of a config.
    return {k: v for k, v in plain.items() if k not in usual or json.dumps(v) != usual[k]}


def defaults(constructor: Callable[..., Any]) -> dict[str, str]:
    """The defaults that ``spec`` fills in, as JSON texts; parameters without one are left out."""
    return {
        key: json.dumps(without_defaults(_freeze(parameter.default)), ensure_ascii=False)
        for key, parameter in parameters(constructor).items()
        if not parameter.required and _is_plain(parameter.default)
    }


def _fill(node: ml_collections.ConfigDict, accepted: Mapping[str, Parameter]) -> None:
    for key, parameter in accepted.items():
        if key not in node and not parameter.required and _is_plain(parameter.default):
            node[key] = _freeze(parameter.default)


def build(node: Any, /, **offers: Any) -> Any:
    """Calls the constructors of a spec tree, inside out; other values are returned as they are.

    ``offers`` fill parameters of the outermost constructor that the config leaves out or sets
    to None (the number of classes, the model an objective trains); parameters that it does not
    have are not offered.
    """
    if isinstance(node, (list, tuple)):
        return tuple(build(item) for item in node)
    if not isinstance(node, ml_collections.ConfigDict):
        return node
    if not is_spec(node):
        return {key: build(value) for key, value in node.items()}
    constructor = locate(node[CONSTRUCTOR])
    accepted = parameters(constructor)
    kwargs = {key: build(value) for key, value in node.items() if key != CONSTRUCTOR}
    for key, value in offers.items():
        if key in accepted and kwargs.get(key) is None:
            kwargs[key] = value
    missing = [k for k, p in accepted.items() if p.required and k not in kwargs]
    if missing:
        raise ConfigError(f"{constructor.__name__} needs {', '.join(missing)}, not in the config")
    try:
        return constructor(**kwargs)
    except (ValueError, TypeError) as error:
        name = constructor.__name__
        raise ConfigError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error


def validate(
    config: Any, *, source: str = "config", offered: Mapping[str, frozenset[str]] | None = None
) -> None:
    """Checks every node of a config tree against its constructor's signature.

    Args:
      config: what ``get_config`` returned.
      source: the file to name in messages.
      offered: path of a node to the required parameters that are filled in later.

    Raises:
      ConfigError: unknown key, wrong type, missing value, or a constructor that cannot be found.
    """
    if not is_spec(config):
        raise ConfigError(f"{source}: get_config() returns a spec(...), not {kind(config)}")
    offered = offered or {}
    for path, node in _specs(config, ""):
        try:
            constructor = locate(node[CONSTRUCTOR])
        except ConfigError as error:
            raise ConfigError(f"{source}: {path or 'config'}: {error}") from error
        accepted = parameters(constructor)
        for key, value in node.items():
            full = f"{path}.{key}" if path else key
            if key == CONSTRUCTOR:
                continue
            if key not in accepted:
                unknown = unknown_key(key, accepted, constructor)
                raise ConfigError(f"{source}: config.{full}: {unknown}")
            _check(value, accepted[key].hint, f"config.{full}", source)
        later = offered.get(path, frozenset())
        for key, parameter in accepted.items():
            if parameter.required and key not in node and key not in later:
                full = f"{path}.{key}" if path else key
                raise ConfigError(
                    f"{source}: config.{full} is missing: {constructor.__name__} needs it "
                    f"({definition(constructor)})"
                )


def load(reference: str, overrides: Mapping[str, str] | None = None) -> ml_collections.ConfigDict:
    """Reads ``configs/x.py``, ``x.py:mode`` or ``slug:mode`` and applies command-line overrides.

    Args:
      reference: path of the config file, or the folder or slug of a paper (``config_files.find``),
        optionally followed by a colon and a call of one of its functions,
        ``small,rival=cutmix``; see ``vision.config.modes``.
      overrides: ``{"model.variant": "B/16", "data.ops[1].size": "192"}``.
    """
    file, _, mode = reference.partition(":")
    path = config_files.find(file)
    if path is None:
        known = [*map(str, sorted(Path(file).parent.glob("*.py"))), *config_files.slugs()]
        near = difflib.get_close_matches(str(Path(file)), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"config file {file} does not exist{hint}")
    file = str(path)
    try:
        with config_files.reading(path) as module:
            config = modes.call(module, mode, file)
    except ConfigError:
        raise
    except Exception as error:
        line = _line_in(error, path)
        raise ConfigError(f"{file}{line}: {type(error).__name__}: {error}") from error
    from vision.config.expand import overridden  # which builds specs

    return overridden(config, overrides or {}, file)


def override(
    config: ml_collections.ConfigDict, path: str, text: str, *, source: str = "config"
) -> None:
    """Sets ``config.<path>`` from a command-line text, in place.

    The path may go through lists (``data.ops[1].size``, ``data.ops.1.size``); the text is read as
    the declared type.
    """
    where, parts = f"--config.{path}={text}", re.findall(r"[^.\[\]]+", path)
    if not parts:
        raise ConfigError("--config. needs a key, for example --config.seed=1")
    if len(parts) == 1 and path not in config and (near := did_you_mean(_specs(config, ""), path)):
        raise ConfigError(f"{where}: {source} has no config.{path}{near}")
    with config.unlocked(), config.ignore_type():
        config[parts[0]] = _override(config, parts, text, where, source)[parts[0]]


def _override(node: Any, parts: list[str], text: str, where: str, source: str) -> Any:
    """A copy of ``node`` in which the value at ``parts`` is read from ``text``."""
    key, rest = parts[0], parts[1:]
    if isinstance(node, (list, tuple)):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(f"{where}: {source} has {len(node)} item(s) here, counted from 0")
        items = list(node)
        if not rest:
            items[int(key)] = parse(text, Any, where)
        else:
            items[int(key)] = _override(items[int(key)], rest, text, where, source)
        return tuple(items)
    if not isinstance(node, ml_collections.ConfigDict):
        raise ConfigError(f"{where}: {source} holds {kind(node)} here, which has no key {key!r}")
    if is_spec(node):
        constructor = locate(node[CONSTRUCTOR])
        accepted = parameters(constructor)
        if key not in accepted:
            raise ConfigError(f"{where}: {unknown_key(key, accepted, constructor)}")
        hint = accepted[key].hint
    elif key in node:
        hint = Any
    else:
        near = nearest(key, list(node))
        raise ConfigError(f"{where}: no key {key!r} in {source}{near}")
    copy = node.copy_and_resolve_references()
    with copy.unlocked(), copy.ignore_type():
        if rest:
            if copy.get(key) is None:
                raise ConfigError(f"{where}: {key} is None in {source}; set it there first")
            copy[key] = _override(copy[key], rest, text, where, source)
        else:
            if is_spec(copy.get(key)) and isinstance(parse(text, Any, where), str):
                path = where.removeprefix("--config.").partition("=")[0]
                raise ConfigError(f"{where}: {cannot_replace(copy[key], path)}")
            copy[key] = _freeze(parse(text, hint, where))
    return copy


def modules_of(config: Any) -> set[str]:
    """Modules of the constructors that a config names."""
    return {path.rpartition(".")[0] for path in constructors_of(config)}


def constructors_of(config: Any) -> list[str]:
    """Import paths of the constructors that a config names."""
    return [str(node[CONSTRUCTOR]) for _, node in _specs(config, "")]


def with_constructors(config: Any, change: Callable[[str], str]) -> Any:
    """A copy of a config in which the path of every constructor is changed."""
    if isinstance(config, (list, tuple)):
        return tuple(with_constructors(item, change) for item in config)
    if not isinstance(config, ml_collections.ConfigDict):
        return config
    node = ml_collections.ConfigDict()
    for key, value in config.items():
        node[key] = change(str(value)) if key == CONSTRUCTOR else with_constructors(value, change)
    return node


def to_plain(config: Any) -> Any:
    """The config as JSON values: dicts, lists, strings, numbers, booleans, None.

    Constructors beside config files are named without their place.
    """
    if isinstance(config, ml_collections.ConfigDict):
        return {
            key: own_modules.portable(str(value)) if key == CONSTRUCTOR else to_plain(value)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    return config


def to_json(config: Any) -> str:
    return json.dumps(to_plain(config), indent=2, ensure_ascii=False) + "\n"


def from_plain(value: Any) -> Any:
    """Inverse of ``to_plain``."""
    if isinstance(value, dict):
        node = ml_collections.ConfigDict()
        for key, item in value.items():
            node[key] = from_plain(item)
        return node
    if isinstance(value, list):
        return tuple(from_plain(item) for item in value)
    return value


def differences(old: Any, new: Any, path: str = "config") -> list[str]:
    """``path: old -> new`` for every value in which two plain configs differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(k for k in new if k not in old)]:
            lines += differences(old.get(key, "absent"), new.get(key, "absent"), f"{path}.{key}")
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}[{i}]")]
    return [] if old == new else [f"{path}: {json.dumps(old)} -> {json.dumps(new)}"]


def _specs(node: Any, path: str) -> Iterator[tuple[str, ml_collections.ConfigDict]]:
    if isinstance(node, ml_collections.ConfigDict):
        if is_spec(node):
            yield path, node
        for key, value in node.items():
            yield from _specs(value, f"{path}.{key}" if path else key)
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _specs(value, f"{path}[{i}]")


def _caller() -> str:
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "config"


def _line_in(error: BaseException, path: Path) -> str:
    traceback, line = error.__traceback__, ""
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename) == path.resolve():
            line = f":{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, f.name)) for f in dataclasses.fields(value))
    return value is None or isinstance(value, (bool, int, float, str))


def _freeze(value: Any) -> Any:
    """Plain values as ConfigDicts and tuples; a dataclass default becomes the spec of itself."""
    if isinstance(value, ml_collections.ConfigDict):
        return value
    if isinstance(value, Mapping):
        node = ml_collections.ConfigDict()
        for key, item in value.items():
            node[key] = _freeze(item)
        return node
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return spec(type(value), **fields)
    return value


def _check(value: Any, hint: Any, name: str, where: str) -> None:
    if (wrong := misfit(value, hint)) is not None:
        raise ConfigError(f"{where}: {name}{wrong}")

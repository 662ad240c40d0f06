"""Command lines of train.py and evaluate.py: flags, config overrides, one-line errors."""

from __future__ import annotations

import difflib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

from vision.config.errors import UserError

_HELP = ("-h", "--help")


class UsageError(UserError):
    """The command line is wrong."""


def parse(
    arguments: list[str],
    usage: str,
    required: tuple[str, ...] = (),
    *,
    workdir_overrides: str = "",
    **flags: str,
) -> SimpleNamespace:
    """Reads ``--flag=value`` and ``--config.<key>=<value>``.

    Flags that are not required are switches when given without a value. ``~`` at the beginning of
    a value is one's home.

    Args:
      arguments: the command line after the program's name.
      usage: shown, with the flags, for ``--help``.
      required: flags that need a value.
      workdir_overrides: without ``--config``, the part of a workdir's config that ``--config.``
        may change, such as ``evaluators``; empty for none.
      **flags: name to help text.

    Returns:
      A namespace with every flag (False when absent) and ``overrides``: key path to text.
    """
    found: dict[str, str | bool] = {}
    overrides: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument in _HELP:
            _show_help(usage, flags)
        if not argument.startswith("--"):
            raise UsageError(f"{argument!r} is no flag; flags are --name=value (see --help)")
        if name.startswith("config."):
            if not equals:
                raise UsageError(f"{argument} needs a value: {argument}=...")
            overrides[name.removeprefix("config.")] = value
        elif name in flags:
            read = _expanded(value) if equals else True
            if found.setdefault(name, read) != read:
                raise UsageError(f"--{name} is given twice: {found[name]} and {read}")
        else:
            near = difflib.get_close_matches(name, flags, n=1)
            hint = f"; did you mean --{near[0]}?" if near else " (see --help)"
            raise UsageError(f"unknown flag --{name}{hint}")
    for name in required:
        if not isinstance(found.get(name), str):
            raise UsageError(f"--{name}=... is required (see --help)")
    if not found.get("config"):
        for key in overrides:
            if not workdir_overrides:
                raise UsageError(
                    "without --config=FILE the config is that of the workdir, which this program "
                    "does not change: no --config.KEY=..."
                )
            if not key.startswith(f"{workdir_overrides}."):
                raise UsageError(
                    f"--config.{key}: without --config=FILE the config is that of the workdir, of "
                    f"which only --config.{workdir_overrides}.... can be changed here"
                )
    values = {name: found.get(name, False) for name in flags}
    return SimpleNamespace(**values, overrides=overrides)


def help_first(usage: str | None, flags: Mapping[str, str] | None = None) -> None:
    """Answers ``--help`` and ends, where the command line asks for it.

    For modules that are programs and import much: called at their top, where they are
    ``__main__``, since help should not wait for what only the work needs.

    Args:
      usage: what ``parse`` is given; alone where the program has no flags.
      flags: those that ``parse`` is given.
    """
    if any(argument in _HELP for argument in sys.argv[1:]):
        _show_help(usage or "", flags or {})


def _show_help(usage: str, flags: Mapping[str, str]) -> None:
    width = max(map(len, flags), default=0)
    print(usage.strip() + "\n" * bool(flags))
    for flag, text in flags.items():
        print(f"  --{flag.ljust(width)}  {text}")
    raise SystemExit(0)


def _expanded(value: str) -> str:
    """Paths in one's home, also in a list with commas: shells leave ``--flag=~/x`` as it is."""
    return ",".join(
        os.path.expanduser(part) if part.startswith("~") else part for part in value.split(",")
    )


def whole_number(flag: str, value: str | bool) -> int:
    """The number given to a flag; 0 when the flag is absent."""
    if value is False:
        return 0
    if not str(value).isdigit():
        raise UsageError(f"--{flag}={'' if value is True else value} is no whole number")
    return int(value)


def run_main(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Runs a command; errors that concern its user become one line on stderr and their ``status``.

    That is 2 for what the user gave, 1 for a run or a file that failed (docs/launch.md has the
    table); any other error prints its traceback and is 1.

    With several processes a failed one ends at once, so that the others and their launcher notice.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    # Orbax logs a save or read that fails once per array and thread, by absl with tracebacks and by
    # futures that nobody asks; the store says it in a line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    status = 1
    try:
        status = main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.status
    except Exception as error:
        if (missing := _missing_backend(error)) is not None:
            print(f"error: {missing}", file=sys.stderr)
            status = 2
        elif (short := _out_of_memory(error)) is not None:
            print(f"error: {short}", file=sys.stderr)
        else:
            traceback.print_exc()
    cluster = sys.modules.get("vision.parallel.cluster")
    if status and cluster is not None and cluster.client() is not None:
        cluster.abandon(status)
    return status


def _missing_backend(error: Exception) -> str | None:
    """What to say of a device that JAX_PLATFORMS names and that is not here; else None."""
    platforms = os.environ.get("JAX_PLATFORMS")
    texts = ("Unable to initialize backend", "Unknown backend")
    if not platforms or not isinstance(error, RuntimeError):
        return None
    if not any(text in str(error) for text in texts):
        return None
    reason = (str(error).splitlines() or [""])[0]
    return (
        f"JAX_PLATFORMS={platforms} names a device that is not here ({reason}): unset it, or set "
        "it to cpu, cuda or tpu"
    )


def _out_of_memory(error: Exception) -> str | None:
    """What to say where a program of ours needed more memory than its device has; else None."""
    lines = str(error).splitlines() or [""]
    if not isinstance(error, RuntimeError) or "RESOURCE_EXHAUSTED" not in lines[0]:
        return None
    return (
        f"{lines[0]}: take a smaller batch; in training --config.accumulate=4 makes the same step "
        "in four parts, and docs/scaling.md has more"
    )


def cache_compilations(folder: Path) -> None:
    """Keeps compiled programs in ``folder``, unless JAX_COMPILATION_CACHE_DIR says where."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))

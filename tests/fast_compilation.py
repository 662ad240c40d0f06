"""XLA's flags for tests: programs here run for milliseconds, so compiling fast is worth more.

What the caller has set in XLA_FLAGS stays, in child processes too, but for the flags set here and
the number of devices, which every test chooses. VISION_TEST_ISA names the newest instruction set
that programs may use (SSE4_2, AVX, AVX2, AVX512 ...; none is unknown to an older processor): sums
are taken in another order with each, and no test may mind.
"""

from __future__ import annotations

import os
from importlib import metadata

_DEVICES = "--xla_force_host_platform_device_count"


def _flags() -> list[str]:
    flags = ["--xla_backend_optimization_level=0"]
    # The older way to emit loops on a CPU compiles much faster. XLA refuses flags that it does
    # not know, and newer ones have no other way.
    if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) <= (0, 10):
        flags.append("--xla_cpu_use_fusion_emitters=false")
        flags.append("--xla_cpu_parallel_codegen_split_count=1")  # two tests at a time, not threads
    if isa := os.environ.get("VISION_TEST_ISA"):
        flags.append(f"--xla_cpu_max_isa={isa}")
    names = {_DEVICES, *(flag.partition("=")[0] for flag in flags)}
    given = os.environ.get("XLA_FLAGS", "").split()
    return [*(flag for flag in given if flag.partition("=")[0] not in names), *flags]


FAST_COMPILATION = " ".join(_flags())


def with_devices(count: int) -> str:
    """The flags for ``count`` virtual CPU devices."""
    return f"{_DEVICES}={count} {FAST_COMPILATION}"

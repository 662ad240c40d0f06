"""XLA's flags for tests: programs here run for milliseconds, so compiling fast is worth more."""

from __future__ import annotations

from importlib import metadata

FAST_COMPILATION = "--xla_backend_optimization_level=0"
# The older way to emit loops on a CPU compiles much faster. XLA refuses flags that it does
# not know, and newer ones have no other way.
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) <= (0, 10):
    FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"

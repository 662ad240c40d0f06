"""Peaks, memories and bandwidths of accelerators, per JAX device.

TPUs: cloud.google.com/tpu/docs, "Key specifications" of each version; HBM as the documents round it
(what the compiler lets a program have is a little less, and it says how much). Interconnect is one
direction of all links of a chip together: half of the documents' "bidirectional ICI bandwidth".
The clock is the bfloat16 peak over what the matrix units do in a cycle. NVIDIA: data sheets;
figures "with sparsity" are halved.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Chip:
    """One JAX device. What nobody publishes is None.

    Attributes:
      bfloat16, float16, tf32, float32: dense peaks of matrix products in 10^12 FLOP/s.
      hbm_gib: main memory in GiB.
      hbm_gb_s: its bandwidth in 10^9 bytes/s.
      link_gb_s: interconnect, all links, one direction, in 10^9 bytes/s.
      links: of the interconnect.
      slice_gb_s: network between slices in 10^9 bytes/s.
      clock_ghz: of the cores.
    """

    bfloat16: float | None
    float16: float | None = None
    tf32: float | None = None
    float32: float | None = None
    hbm_gib: float | None = None
    hbm_gb_s: float | None = None
    link_gb_s: float | None = None
    links: int = 0
    slice_gb_s: float | None = None
    clock_ghz: float | None = None


# A device of JAX is one core, and v2, v3 and v7 have two per chip; the two of v4 and v5p are one
# device where they run.
_V4 = Chip(275, hbm_gib=32, hbm_gb_s=1228, link_gb_s=300, links=6, clock_ghz=1.05)
_V5P = Chip(459, hbm_gib=95, hbm_gb_s=2765, link_gb_s=600, links=6, slice_gb_s=6.25, clock_ghz=1.75)
_V5E = Chip(197, hbm_gib=16, hbm_gb_s=819, link_gb_s=200, links=4, slice_gb_s=3.125, clock_ghz=1.5)
_V6E = Chip(918, hbm_gib=32, hbm_gb_s=1638, link_gb_s=400, links=4, slice_gb_s=12.5, clock_ghz=1.75)
_V7 = Chip(1153.5, hbm_gib=96, hbm_gb_s=3690)

# By the beginning of JAX's ``device_kind``; the longest that fits in whole words decides.
CHIPS: Mapping[str, Chip] = {
    "TPU v2": Chip(22.5, hbm_gib=8, hbm_gb_s=350),
    "TPU v3": Chip(61.5, hbm_gib=16, hbm_gb_s=450),
    "TPU v4": _V4,
    "TPU v4 lite": Chip(138, hbm_gib=8, hbm_gb_s=614),
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v5e": _V5E,
    "TPU v5 lite": _V5E,
    "TPU v6e": _V6E,
    "TPU v6 lite": _V6E,
    "TPU7": _V7,
    "TPU7x": _V7,
    "Tesla V100-SXM2": Chip(None, 125, None, 15.7, hbm_gb_s=900),
    "Tesla V100-PCIE": Chip(None, 112, None, 14, hbm_gb_s=900),
    "Tesla T4": Chip(None, 65, None, 8.1, hbm_gib=16, hbm_gb_s=320),
    "NVIDIA A100": Chip(312, 312, 156, 19.5),
    "NVIDIA A10": Chip(125, 125, 62.5, 31.2, hbm_gib=24, hbm_gb_s=600),
    "NVIDIA L4": Chip(121, 121, 60, 30.3, hbm_gib=24, hbm_gb_s=300),
    "NVIDIA L40S": Chip(362, 362, 183, 91.6, hbm_gib=48, hbm_gb_s=864),
    "NVIDIA H100": Chip(989.4, 989.4, 494.7, 66.9, hbm_gib=80, hbm_gb_s=3350),
    "NVIDIA H100 PCIe": Chip(756, 756, 378, 51.2, hbm_gib=80, hbm_gb_s=2000),
    "NVIDIA H100 NVL": Chip(835, 835, 417.5, 60, hbm_gib=94, hbm_gb_s=3900),
    "NVIDIA H200": Chip(989.4, 989.4, 494.7, 66.9, hbm_gib=141, hbm_gb_s=4800),
    "NVIDIA H200 NVL": Chip(835, 835, 417.5, 60, hbm_gib=141, hbm_gb_s=4800),
    "NVIDIA GH200": Chip(989.4, 989.4, 494.7, 66.9),
    "NVIDIA B200": Chip(2250, 2250, 1125, 75),
    "NVIDIA GB200": Chip(2500, 2500, 1250, 80),
}


def find(device_kind: str) -> Chip | None:
    """The chip of a ``jax.Device.device_kind``; None for CPUs, shares of a card and the unknown."""
    words = re.split(r"[ -]", device_kind)
    names = [n for n in CHIPS if re.split(r"[ -]", n) == words[: len(re.split(r"[ -]", n))]]
    # A MIG slice carries the name of the whole card.
    return None if not names or "MIG" in words else CHIPS[max(names, key=len)]

"""The recipe of digits with a tower that compiles in no time: a config for tests of programs."""

from __future__ import annotations

from typing import Any

import vision as v
from configs.digits_vit import get_config as digits
from tests.patch_tower import PatchTower
from vision import spec


def get_config() -> v.Config:
    config: Any = digits()
    config.model = spec(PatchTower)
    config.total = "2 steps"
    config.optimizer.schedule.warmup = "0 steps"
    return config

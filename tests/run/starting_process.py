"""One process of a run that starts from weights; run by test_starting_processes.

The second process does not find them.
"""

from __future__ import annotations

import jax

from vision.config.errors import UserError
from vision.parallel import cluster
from vision.run.initial import load_together


def load() -> dict[str, int]:
    if jax.process_index() == 1:
        raise UserError("there are no weights at /data/model.safetensors")
    return {"params": 1}


if __name__ == "__main__":
    cluster.join(detect=False)
    try:
        load_together(load)
    except UserError as error:
        print(error, flush=True)
    cluster.leave()

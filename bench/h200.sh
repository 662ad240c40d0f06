#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU: measures in about ten minutes what training on it
# comes to, beside timm and open_clip with torch.compile on the same GPU and batch.
#
#   bash bench/h200.sh            # makes .venv-cuda and .venv-torch, then measures
#   bash bench/h200.sh --dry      # says what it would do; needs no GPU
#
# Written to bench/results/gpu.csv (steps) and bench/results/gpu_runs.csv (JPEGs, a kill and resume,
# numerical core). It has not been run on a GPU yet: the dry parts are tested, no table is committed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
dry=; [ "${1:-}" = --dry ] && dry=1
[ $# -le 1 ] && { [ $# -eq 0 ] || [ -n "$dry" ]; } || { echo "usage: bash bench/h200.sh [--dry]" >&2; exit 2; }

run() {
  echo "+ $*"
  [ -n "$dry" ] || "$@"
}

if [ -z "$dry" ] && ! command -v nvidia-smi > /dev/null; then
  echo "error: no nvidia-smi here, so no NVIDIA GPU: run it on a machine with one, or with --dry" >&2
  exit 2
fi

jax=$(sed -n 's/^jax==//p' requirements.lock)
ours=.venv-cuda/bin/python
theirs=.venv-torch/bin/python
[ -x $ours ] || run "$python" -m venv .venv-cuda
run $ours -m pip install --quiet -r requirements-test.txt "jax[cuda13]==$jax" -c requirements.lock
[ -x $theirs ] || run "$python" -m venv .venv-torch
run $theirs -m pip install --quiet torch torchvision timm open_clip_torch

export XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
# Steps in bfloat16: images per second, MFU, memory, each beside its peer in alternating rounds.
run $ours -m bench.gpu --peer=$theirs
# A folder of JPEGs from decoding to the step, and a run that is killed and goes on.
run $ours -m bench.gpu_runs
# Numbers: towers, objectives, optimizers and metrics against their goldens, in full float32. Tests
# that split work over eight devices are left out: they need as many.
run env VISION_TEST_PLATFORM=cuda JAX_DEFAULT_MATMUL_PRECISION=highest $ours -m pytest -q -n 0 \
  -m "not slow" -k "not eight and not mesh and not devices and not shard and not together" \
  tests/models tests/objectives tests/blocks tests/train tests/metrics tests/probes

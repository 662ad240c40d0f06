#!/bin/bash
# Trains on all workers of a Cloud TPU slice, one process per TPU VM:
#
#     launch/tpu_vm.sh setup NAME ZONE       copy the committed code, install
#     launch/tpu_vm.sh run   NAME ZONE --config=... --workdir=/mnt/runs/vit
#     launch/tpu_vm.sh stop  NAME ZONE       SIGTERM: the state is saved
#
# The workdir is a folder that all workers see (Filestore, or a bucket through gcsfuse).
# `run` again goes on where the last one stopped.

set -euo pipefail

if (($# < 3)); then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
action=$1 name=$2 zone=$3
shift 3

on_all() {
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $action in
setup)
    archive=$(mktemp --suffix=.tar.gz)
    trap 'rm -f "$archive"' EXIT
    git archive --format=tar.gz --output="$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$name:vision.tar.gz" --zone="$zone" --worker=all
    on_all "mkdir -p vision && tar -xzf vision.tar.gz -C vision && cd vision &&
        python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt 'jax[tpu]'"
    ;;
run)
    printf -v flags ' %q' "$@"
    # The shell becomes the program: the number it leaves is the program's.
    on_all "cd vision && echo \$\$ > train.pid && exec .venv/bin/python train.py$flags --distributed"
    ;;
stop)
    on_all "kill -TERM \$(cat vision/train.pid)"
    ;;
*)
    echo "unknown action $action: setup, run or stop" >&2
    exit 2
    ;;
esac

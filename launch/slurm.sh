#!/bin/bash
# Trains on SLURM, one process per GPU:
#
#     sbatch launch/slurm.sh --config=configs/vit_s16_i1k.py --workdir=/shared/runs/vit
#
# The same command again goes on where the last one stopped. Edit the lines below for your cluster.
# Status of train.py: 0 done; 2 wrong config; 143 stopped by SIGTERM, state saved; else a failure.

#SBATCH --job-name=vision
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
# All GPUs of a node are visible to all its tasks (no --gpus-per-task): each takes the one with its
# own number.
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
# SIGTERM to all tasks so many seconds before the time is up: enough to save and end.
#SBATCH --signal=TERM@300

set -u
LEAD_S=300
RESTARTS=3
PYTHON=${PYTHON:-.venv/bin/python}

# SLURM may signal this shell too; the tasks get their own.
trap 'true' TERM

run() {
    srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        "$PYTHON" train.py "$@" --distributed &
    local job=$! status
    wait "$job"
    status=$?
    # A signal ends `wait` early.
    while kill -0 "$job" 2>/dev/null; do
        wait "$job"
        status=$?
    done
    return "$status"
}

for ((attempt = 0; ; attempt++)); do
    run "$@"
    status=$?
    if ((status == 0 || status == 2)); then
        exit "$status"
    fi
    if ((status == 143)); then
        # A preempted job is put back by SLURM, and a cancelled one is to stay cancelled. Only when
        # its time was up does the job put itself back.
        left=$((${SLURM_JOB_END_TIME:-0} - $(date +%s)))
        if ((${SLURM_JOB_END_TIME:-0} > 0 && left <= LEAD_S + 120)); then
            echo "slurm.sh: time is up, state is saved: back into the queue"
            scontrol requeue "$SLURM_JOB_ID"
        fi
        exit "$status"
    fi
    if ((attempt >= RESTARTS)); then
        echo "slurm.sh: status $status, giving up after $RESTARTS restarts"
        exit "$status"
    fi
    echo "slurm.sh: status $status, restart $((attempt + 1)) of $RESTARTS"
done

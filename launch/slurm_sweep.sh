#!/bin/bash
# A sweep on SLURM: every task of the array works on trials that nobody works on, until none is left.
#
#     sbatch --array=0-7 launch/slurm_sweep.sh --config=digits_vit --workdir=/shared/sweeps/lr \
#         --grid optimizer.learning_rate=1e-3,3e-3 --grid seed=0,1,2
#
# The folder has to be on a disk that all nodes see. More tasks than trials end at once; fewer take
# several each. The same command again goes on where the last one stopped. Edit the lines below for
# your cluster. Status: 0 done; 1 a trial failed; 2 wrong arguments; 143 stopped, states saved.

#SBATCH --job-name=vision-sweep
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.out
# SIGTERM so many seconds before the time is up: enough to save and end.
#SBATCH --signal=B:TERM@300

set -u
LEAD_S=300
PYTHON=${PYTHON:-.venv/bin/python}

"$PYTHON" -m vision.sweep "$@" &
sweep=$!
trap 'kill -TERM "$sweep" 2>/dev/null' TERM INT
wait "$sweep"
status=$?
# A signal ends `wait` early.
while kill -0 "$sweep" 2>/dev/null; do
    wait "$sweep"
    status=$?
done

if ((status == 143)); then
    # A preempted job is put back by SLURM, and a cancelled one is to stay cancelled. Only when its
    # time was up does the task put itself back.
    left=$((${SLURM_JOB_END_TIME:-0} - $(date +%s)))
    if ((${SLURM_JOB_END_TIME:-0} > 0 && left <= LEAD_S + 120)); then
        echo "slurm_sweep.sh: time is up, states are saved: back into the queue"
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    fi
fi
exit "$status"

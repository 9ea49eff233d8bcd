#!/usr/bin/env bash
# Searches with several processes of this machine: one chief, N workers.
#
#     bash recipes/search_distributed.sh N SCRIPT [ARGUMENTS]
#
# SCRIPT is any Python script that calls `search(..., directory=...)`, such as
# `recipes/search.py --seeds 1 --data FOLDER`. All processes run it: the chief
# hands out trials, the workers train them. Trials and activations are shared
# through `directory`. A worker that dies loses its trial to another one; when
# the chief was stopped, start all of it again, and it goes on.
#
# On several machines, with a folder that all of them see: run SCRIPT on each with
#
#     KERASTUNER_ORACLE_IP    address of the chief's machine
#     KERASTUNER_ORACLE_PORT  a free port there
#     KERASTUNER_TUNER_ID     chief on that machine, another name on each other
#
# Under SLURM, `srun` with `KERASTUNER_TUNER_ID=worker$SLURM_PROCID` for the
# workers does; in Kubernetes a Job with an index
# (`worker$JOB_COMPLETION_INDEX`) and a Service for the chief.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '4p' "$0" >&2
    exit 2
fi
workers=$1
shift
python=${PYTHON:-python}
export KERASTUNER_ORACLE_IP=127.0.0.1
KERASTUNER_ORACLE_PORT=$("$python" -c '
import socket
with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    print(one.getsockname()[1])')
export KERASTUNER_ORACLE_PORT
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
KERASTUNER_TUNER_ID=chief "$python" "$@" &
chief=$!
for number in $(seq "$workers"); do
    KERASTUNER_TUNER_ID="worker$number" "$python" "$@" >/dev/null &
done
wait "$chief"

#!/usr/bin/env bash
# Searches with several processes on this machine: one chief, N workers.
#
#     bash recipes/search_distributed.sh N SCRIPT [ARGUMENTS]
#
# Activate your environment first, or set PYTHON to its interpreter. SCRIPT is
# any Python script that calls `search(..., directory=...)`, such as
# `recipes/search.py --seeds 1 --data FOLDER`. All processes run it: the chief
# assigns trials, the workers train them. Code after the search also runs in all
# processes; restrict it to the one whose KERASTUNER_TUNER_ID is "chief". Trials
# and activations are shared through `directory`. If a worker dies, another one
# takes over its trial; if the chief stops, run the command again to resume.
#
# On several machines with a shared folder, run SCRIPT on each with
#
#     KERASTUNER_ORACLE_IP    address of the chief's machine; there, 0.0.0.0
#     KERASTUNER_ORACLE_PORT  a free port there
#     KERASTUNER_TUNER_ID     chief on that machine, a unique name on the others
#
# Under SLURM, start workers by `srun` with
# `KERASTUNER_TUNER_ID=worker$SLURM_PROCID`; in Kubernetes, use an indexed Job
# (`worker$JOB_COMPLETION_INDEX`), and a Service for the chief.
set -euo pipefail
if [ $# -lt 2 ] || ! [ "$1" -gt 0 ] 2>/dev/null; then
    sed -n 's/^#     bash/Usage: bash/p' "$0" >&2
    echo "N, the number of workers, must be at least 1." >&2
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
others=()
for number in $(seq "$workers"); do
    KERASTUNER_TUNER_ID="worker$number" "$python" "$@" > >(
        sed "s/^/worker$number: /"
    ) &
    others+=($!)
done
# Without this the chief would wait forever for workers that have failed.
running() { kill -0 "$1" 2>/dev/null; }
while running "$chief"; do
    left=0 good=0
    for other in "${others[@]}"; do
        if running "$other"; then left=1; elif wait "$other"; then good=1; fi
    done
    if [ "$left$good" = 00 ]; then
        echo "All workers failed; see their messages above." >&2
        exit 1
    fi
    sleep 1
done
wait "$chief"
for other in "${others[@]}"; do
    wait "$other" || true
done

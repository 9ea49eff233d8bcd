#!/usr/bin/env bash
# Trains with several processes on this machine, as on several machines.
#
#     bash recipes/multi_worker.sh N SCRIPT [ARGUMENTS]
#
# Activate your environment first, or set PYTHON to its interpreter. SCRIPT is
# any Python script that begins with `devices = ktr.connect_workers()` and gives
# `devices` to `fine_tune` or `extract_features`, such as
# `recipes/multi_worker.py --data FOLDER`. All processes run it, each with its
# own TF_CONFIG; worker 0, the chief, writes the `directory` of the run. If a
# worker stops, the others stop with an error. Run the command again, with any
# number of workers, to resume after the last complete epoch.
#
# This is for trying out and testing. On one machine with several GPUs
# `devices="auto"` in one process is faster.
set -euo pipefail
if [ $# -lt 2 ] || ! [ "$1" -gt 0 ] 2>/dev/null; then
    sed -n 's/^#     bash/Usage: bash/p' "$0" >&2
    echo "N, the number of workers, must be at least 1." >&2
    exit 2
fi
workers=$1
shift
python=${PYTHON:-python}
ports=$("$python" -c '
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(" ".join(str(one.getsockname()[1]) for one in sockets))' "$workers")
addresses=""
for port in $ports; do
    addresses="$addresses${addresses:+, }\"127.0.0.1:$port\""
done
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
processes=()
for ((rank = 0; rank < workers; rank++)); do
    export TF_CONFIG="{\"cluster\": {\"worker\": [$addresses]}, \
\"task\": {\"type\": \"worker\", \"index\": $rank}}"
    if [ "$rank" -eq 0 ]; then
        "$python" "$@" &
    else
        "$python" "$@" > >(sed "s/^/worker $rank: /") 2>&1 &
    fi
    processes+=($!)
done
failed=0
for process in "${processes[@]}"; do
    wait "$process" || failed=$?
done
exit "$failed"

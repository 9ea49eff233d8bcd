#!/usr/bin/env bash
# The tests on a fresh clone: sets itself up, then runs pytest. Arguments go to
# pytest; the marks `slow`, `exhaustive` and `gpu` are off unless -m says
# otherwise, e.g.
#   bash tools/test.sh -m "not gpu" tests/test_heads.py
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"

setup test
export KERAS_TRANSFER_ASSETS="${KERAS_TRANSFER_ASSETS:-../shared/assets}"
cd "$ROOT"
exec "$VENV_PYTHON" -m pytest "$@"

#!/usr/bin/env bash
# All that tools/check.sh runs, and the exhaustive tables: every network of
# keras.applications and every family of KerasHub. About an hour more on two
# cores. Arguments go to pytest.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"

bash "$ROOT/tools/check.sh" || exit 1
bash "$ROOT/tools/test.sh" -m "exhaustive and not gpu" -n 2 --dist loadgroup \
  "$@" || exit 1
echo "Exhaustive tables passed at $(git -C "$ROOT" rev-parse --short HEAD)," \
  "$(date -I)."

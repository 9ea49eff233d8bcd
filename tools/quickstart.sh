#!/usr/bin/env bash
# The main job on a fresh clone: sets itself up, then adapts the embedded
# backbone to handwritten digits. Arguments go to recipes/quickstart.py, e.g.
#   bash tools/quickstart.sh --data FOLDER --backbone MobileNetV2
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"

setup
# TensorFlow 2.21 writes these lines before its log level is read.
noise='^[IW]0000 |^WARNING: All log messages before absl::InitializeLog'
exec "$VENV_PYTHON" "$ROOT/recipes/quickstart.py" "$@" \
  2> >(grep --line-buffered -vE "$noise" >&2)

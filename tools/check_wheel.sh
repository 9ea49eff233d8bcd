#!/usr/bin/env bash
# Builds the source archive and, from it, the wheel; installs the wheel with its
# dependencies into a clean environment and uses it from an empty folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"

setup test
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$VENV_PYTHON" -m build --outdir "$work/dist" "$ROOT" >"$work/build.log" 2>&1 ||
  { cat "$work/build.log"; die "The wheel could not be built."; }
"$VENV_PYTHON" -m venv "$work/venv"
python="$work/venv/bin/python"
# Compiling all of TensorFlow would take longer than using it here.
"$python" -m pip install -qq --disable-pip-version-check --no-compile \
  "$work"/dist/*.whl
"$python" -m pip check --disable-pip-version-check

mkdir "$work/empty"
cd "$work/empty"
"$python" - <<'PYTHON'
import sys

import keras_transfer as ktr

if {"tensorflow", "keras"} & set(sys.modules):
    sys.exit("import keras_transfer is not lazy")

import numpy as np
import tensorflow_datasets  # noqa: F401
import tensorflow_hub  # noqa: F401
import keras_tuner  # noqa: F401

model = ktr.build_classifier(ktr.load_backbone("ResNet20"), num_classes=10)
images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
scores = model.predict(images.astype("float32"), verbose=0)
np.testing.assert_allclose(scores.sum(axis=-1), 1, atol=1e-5)
print(f"keras_transfer {ktr.__version__} works from {ktr.__file__}")
PYTHON

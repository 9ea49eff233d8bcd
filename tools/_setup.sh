# Sourced by the other tools. `setup` makes .venv at the root of the repository
# where there is none and installs the package into it; the second time it only
# compares one file. Nothing outside the repository is written, except what pip
# keeps in its own cache.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV_PYTHON="$ROOT/.venv/bin/python"

# Modules of the caller's environment must not shadow ours.
unset PYTHONPATH PYTHONHOME
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
export MPLBACKEND=Agg
export MPLCONFIGDIR="${MPLCONFIGDIR:-$ROOT/.venv/cache/matplotlib}"
# A Keras cache of the user's own is used where there is one (it may hold
# weights), and not made where there is none.
if [ ! -d "${HOME:-}/.keras" ]; then
  export KERAS_HOME="${KERAS_HOME:-$ROOT/.venv/cache/keras}"
fi

die() {
  echo "$*" >&2
  exit 1
}

# TensorFlow has no build for Python 3.14 yet.
find_python() {
  local candidate
  local wanted='(3, 11) <= sys.version_info[:2] <= (3, 13)'
  if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
  else
    set -- python3 python python3.13 python3.12 python3.11
  fi
  for candidate; do
    if "$candidate" -c "import sys; sys.exit(not $wanted)" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "Python 3.11, 3.12 or 3.13 is needed; none of these is it: $*." \
    "Install one, or name it: PYTHON=/path/to/python3.11 bash $0"
}

# What an installation depends on; a moved repository needs a new one too.
installed_from() {
  echo "$ROOT"
  cat "$ROOT/setup.cfg" "$ROOT/pyproject.toml"
}

# setup [EXTRA]: the stamp is written last, so that an interrupted installation
# is done again.
setup() {
  local extra="${1:-}" python stamp
  stamp="$ROOT/.venv/.installed${extra:+-$extra}"
  if installed_from | cmp -s - "$stamp" && [ -x "$VENV_PYTHON" ]; then
    return
  fi
  if ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
    python="$(find_python)" || exit 1
    echo "Making $ROOT/.venv with $("$python" --version)." >&2
    "$python" -m venv --clear "$ROOT/.venv" ||
      die "$python could not make .venv. On Debian and Ubuntu the venv module" \
        "is a package of its own: apt install python3-venv"
  fi
  echo "Installing keras_transfer${extra:+[$extra]} into .venv; the first" \
    "time takes some minutes and about 3 GB of disk." >&2
  rm -f "$stamp"
  "$VENV_PYTHON" -m pip install -qq --disable-pip-version-check \
    --editable "$ROOT${extra:+[$extra]}" ||
    die "The installation failed: see pip's message above. It needs a package" \
      "index (pip's own settings apply) and is taken up again by the next run."
  installed_from >"$stamp"
}

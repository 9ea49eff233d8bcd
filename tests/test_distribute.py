"""Several devices give the numbers of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_transfer.distribute import choose_devices

CASES = (
    "linear-probe penalty layer-decay cached ema accumulation uneven"
).split()


def run_several(*arguments, variables=None):
    done = subprocess.run(
        [sys.executable, "-m", "training._several", *arguments],
        cwd=Path(__file__).parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_give_the_numbers_of_one_device(replicas):
    found = run_several(str(replicas))
    assert [row["case"] for row in found] == CASES
    for row in found:
        assert row["losses"] <= 1e-5, row
        assert row["weights"] <= 1e-5, row


def test_devices_are_checked():
    with pytest.raises(ValueError, match="there are 1 logical CPUs"):
        choose_devices(2)
    with pytest.raises(TypeError, match='must be "auto", an integer'):
        choose_devices("all")
    assert choose_devices("auto") is None
    assert choose_devices(1) is None
    assert choose_devices(None) is None

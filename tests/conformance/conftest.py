"""What the conformance tests share: one process without keras_transfer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = Path(__file__).with_name("_fresh_process.py")


@pytest.fixture(scope="session")
def _worker(tmp_path_factory):
    """Starts once, since importing TensorFlow takes seconds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    log = folder / "stderr.txt"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-I", str(WORKER)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        yield process, log
        process.stdin.close()
        process.wait(timeout=60)


@pytest.fixture
def in_fresh_process(_worker, tmp_path):
    """A function that saves a model and loads it without keras_transfer.

    It returns what the other process found: the largest difference to the
    `expected` outputs on `images`, the class names, the trainable weights.
    """
    process, log = _worker

    def load(model, images, expected):
        file = tmp_path / "model.keras"
        request = {"model": str(file)}
        for name, array in (("images", images), ("expected", expected)):
            request[name] = str(tmp_path / f"{name}.npy")
            np.save(request[name], np.asarray(array))
        try:
            model.save(file)
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline() or "{}")
        finally:
            file.unlink(missing_ok=True)  # up to 1.4 GB, and pytest keeps it
        assert "error" not in answer, answer["error"]
        assert answer, f"the process died:\n{log.read_text()[-2000:]}"
        return answer

    return load

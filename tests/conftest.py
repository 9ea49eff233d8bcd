"""What every test shares: quiet logs, a fixed seed, an empty folder, assets."""

import atexit
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Keras reads its settings and its weights from KERAS_HOME when it is first
# imported: those of the user must not change what is tested.
_KERAS_HOME = Path(tempfile.mkdtemp(prefix="keras_transfer_tests_"))
atexit.register(shutil.rmtree, _KERAS_HOME, ignore_errors=True)
os.environ["KERAS_HOME"] = str(_KERAS_HOME)
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MPLBACKEND"] = "Agg"


# Files of a minute and more, the longest first.
LONG = (
    "test_search.py",
    "test_workers.py",
    "test_cached_training.py",
    "test_session.py",
    "test_devices.py",
    "test_fine_tune.py",
    "test_resume.py",
    "test_recipes.py",
    "test_text_backbones.py",
    "test_transfer.py",
    "test_cross_validation.py",
    "test_backbones.py",
    "test_kerashub.py",
    "test_extraction.py",
    "test_docs.py",
    "test_readme.py",
    "test_joints.py",
)


def pytest_collection_modifyitems(items):
    """Long files begin first, so that no process is alone with one at the end.

    Files are shared out whole and in this order (`--dist loadfile`).
    """
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


def pytest_collection_finish():
    """Spares each collection of garbage what is imported for good."""
    gc.collect()
    gc.freeze()


def _seed():
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
    else:  # Importing Keras takes seconds, and some tests do without.
        random.seed(0)


@pytest.fixture(autouse=True, scope="module")
def _seeds_of_file():
    """What the tests of a file share is made before `_seeds` of the first."""
    _seed()


@pytest.fixture(autouse=True)
def _seeds():
    _seed()


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """A relative path in a test cannot reach the repository.

    Nor do features get into the user's store, or out of it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def assets():
    """The folder of real weights and images; skips where it is absent."""
    setting = os.environ.get("KERAS_TRANSFER_ASSETS") or "../shared/assets"
    path = (ROOT / setting).resolve()
    if not path.is_dir():
        pytest.skip(
            f"The assets are not at {setting}: set KERAS_TRANSFER_ASSETS to "
            "the folder that holds them."
        )
    return path


@pytest.fixture(scope="session")
def keras_home(assets):
    """Keras' own cache, holding the ImageNet weights of the assets.

    With it `weights="imagenet"` needs no network for MobileNet 0.25 and
    MobileNetV2 0.35 at 224 pixels.
    """
    models = _KERAS_HOME / "models"
    models.mkdir(exist_ok=True)
    for file in (assets / "keras_home" / "models").iterdir():
        shutil.copyfile(file, models / file.name)
    return _KERAS_HOME


_WORKER = ROOT / "tests" / "_fresh_process.py"


@pytest.fixture(scope="session")
def _worker(tmp_path_factory):
    """Starts once, since importing TensorFlow takes seconds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    log = folder / "stderr.txt"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-I", str(_WORKER)],
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
    import numpy

    process, log = _worker

    def load(model, images, expected):
        file = tmp_path / "model.keras"
        request = {"model": str(file)}
        for name, array in (("images", images), ("expected", expected)):
            request[name] = str(tmp_path / f"{name}.npy")
            numpy.save(request[name], numpy.asarray(array))
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

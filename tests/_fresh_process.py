"""Loads saved models where keras_transfer does not exist.

Run by its path with `python -I`. Reads one JSON request from each line of
standard input, `{"model": ..., "images": ..., "expected": ...}` (a `.keras`
file and two `.npy` files), and answers with one line of JSON each.
"""

import gc
import json
import sys
import traceback
import warnings


class _Blocker:
    """Comes first among the import finders: the package is not to be had."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "keras_transfer":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _answer(request):
    import keras
    import numpy as np

    model = keras.models.load_model(request["model"])
    images = np.load(request["images"])
    outputs = np.array(model(images, training=False))
    expected = np.load(request["expected"])
    # As keras_transfer/README.md says that it is written.
    name = model.get_layer("head").layers[0].name
    prefix, _, names = name.partition("=")
    return {
        "difference": float(np.abs(outputs - expected).max()),
        "dtype": str(outputs.dtype),
        "class_names": json.loads(names) if prefix == "class_names" else None,
        "layers": [layer.name for layer in model.layers],
        "trainable": [v.path for v in model.trainable_variables],
        "weights": [w.path for w in model.weights],
    }


def main():
    # Only answers go to standard output.
    answers, sys.stdout = sys.stdout, sys.stderr
    sys.meta_path.insert(0, _Blocker())
    try:
        import keras_transfer  # noqa: F401
    except ModuleNotFoundError:
        pass
    else:
        sys.exit("keras_transfer can be imported here")
    import keras

    warnings.simplefilter("error")
    # Keras 3.15 and TensorFlow 2.21 with NumPy 2.4, wherever they save.
    warnings.filterwarnings("ignore", message="__array__ implementation")
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        keras.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    main()

"""One process of a search by several: `python -m tuning._workers FOLDER`."""

import json
import os
import sys
from pathlib import Path

import keras

import keras_transfer as ktr
from keras_transfer.tuning import workers
from keras_transfer.tuning.execution.session import TrainingSession

from ._killed import SPACE


def main(folder):
    """Searches; a worker notes each trial that it begins."""
    from training._tiny import make_data, make_model

    workers._BEAT_SECONDS, workers._LOST_SECONDS = 0.5, 4.0
    name = os.environ.get("KERASTUNER_TUNER_ID", "alone")
    run = TrainingSession.run

    def noting(self, phases, **options):
        with open(folder / f"{name}.log", "a") as file:
            file.write(f"{phases[-1].learning_rate}\n")
        return run(self, phases, **options)

    TrainingSession.run = noting
    space = SPACE | {"learning_rate": [1e-1, 1e-2], "lambda_": [0, 0.1]}
    result = ktr.search(
        make_model(),
        make_data(),
        space=space,
        max_trials=30,
        epochs=2,
        oracle="grid",
        directory=folder / "search",
        verbose=0,
    )
    best = result.rows[0]
    print(
        json.dumps(
            {
                "rows": len(result.rows),
                "status": sorted({row["status"] for row in result.rows}),
                "best": {k: best[k] for k in ("learning_rate", "depth")},
                "score": round(best["val_accuracy"], 5),
                "weights": result.best_model.count_params(),
            }
        )
    )


if __name__ == "__main__":
    keras.config.disable_interactive_logging()
    main(Path(sys.argv[1]))

"""`python -m distribute._searching`: a search, features, a builder on two."""

import json
import sys

import keras
import numpy as np
from training._tiny import make_data, make_model

import keras_transfer as ktr

from ._several import split_cpu


def main():
    """Prints how far two logical CPUs are from one."""
    split_cpu(2)
    data = make_data()
    space = ktr.SearchSpace(
        learning_rate=[1e-2],
        lambda_=[0.0, 0.1],
        depth=[0, 1],
        strategy=(ktr.Phase(epochs=2),),
    )
    tables, soups, features = [], [], []
    for devices in (None, 2):
        model = make_model()
        result = ktr.search(
            model,
            data,
            space=space,
            oracle="grid",
            batch_size=14,
            soup=True,
            devices=devices,
            verbose=0,
        )
        rows = sorted(result.rows, key=lambda row: row["trial"])
        tables.append([[r["val_loss"], r["val_accuracy"]] for r in rows])
        soups.append(
            result.best_model.predict(data.test.arrays()[0], verbose=0)
        )
        features.append(
            ktr.extract_features(
                model,
                data,
                store="memory",
                batch_size=17,  # Of 18 the last one is for two.
                devices=devices,
                verbose=0,
            ).train.values
        )
    keras.utils.set_random_seed(0)
    built = ktr.build_classifier(model_backbone(), 3, devices=2)
    replicas = built.distribute_strategy.num_replicas_in_sync
    # Made there, it trains there.
    run = ktr.fine_tune(built, data, depth=1, epochs=1, verbose=0)
    print(
        json.dumps(
            {
                "table": difference(tables),
                "trials": len(tables[1]),
                "best": difference(soups),
                "features": difference(features),
                "replicas": replicas,
                "epochs": len(run.rows),
            }
        )
    )


def model_backbone():
    """A backbone of one block."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="block_1_conv")(inputs)
    return ktr.load_backbone(
        keras.Model(inputs, x, name="one"), pixel_range="[0, 1]"
    )


def difference(pair):
    """The largest one."""
    one, other = (np.asarray(part) for part in pair)
    return float(np.abs(one - other).max())


if __name__ == "__main__":
    sys.exit(main())

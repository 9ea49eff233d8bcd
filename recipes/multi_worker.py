r"""Fine-tuning on all GPUs of a machine, or on several machines.

    python recipes/multi_worker.py --data FOLDER
    bash recipes/multi_worker.sh 2 recipes/multi_worker.py --data FOLDER

The first command uses the devices of this machine, the second starts two
workers on it. On several machines, run the first command on each, with its own
`TF_CONFIG`; see "Many devices" in the README for SLURM and Kubernetes. The run
is saved in `--output`: the same command resumes it, with any number of workers.

The weights are the same as on one device with the same `--batch-size`, which is
the total over all workers.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from _smoke import write_network, write_noise

import keras_transfer as ktr


@dataclasses.dataclass(frozen=True)
class Config:
    """The recipe's settings."""

    data: str
    backbone: str = "MobileNetV2"
    weights: str = "pretrained"
    alpha: float | None = None  # width, for the MobileNets
    image_size: int = 224
    batch_size: int = 32
    depth: int = 2
    epochs: int = 5
    output: str = "runs/multi_worker"


def main(config: Config) -> dict[str, float]:
    """Trains, saves the model, returns metrics on the test images."""
    # Comes first, since TensorFlow joins other processes only when it starts.
    devices = ktr.connect_workers()
    size = config.image_size
    data = ktr.load_images(config.data, image_size=size, on_error="skip")
    options = {} if config.alpha is None else {"alpha": config.alpha}
    options |= {"input_shape": (size, size, data.channels)}
    backbone = ktr.load_backbone(
        config.backbone, weights=config.weights, **options
    )
    model = ktr.build_classifier(backbone, data=data)
    run = ktr.fine_tune(
        model,
        data,
        depth=config.depth,
        epochs=config.epochs,
        batch_size=config.batch_size,
        directory=Path(config.output) / "run",
        devices=devices,
    )
    if run.is_chief:  # All workers have the model; only one writes it.
        model.save(Path(config.output) / "model.keras")
    return dict(run.evaluate(data.test))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of classes, or a table")
    parser.add_argument("--backbone", default=Config.backbone)
    parser.add_argument("--weights", default=Config.weights)
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--image-size", type=int, default=Config.image_size)
    parser.add_argument("--batch-size", type=int, default=Config.batch_size)
    parser.add_argument("--depth", type=int, default=Config.depth)
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--output", default=Config.output)
    parser.add_argument("--smoke", action="store_true", help="run on noise")
    arguments = vars(parser.parse_args())
    smoke = arguments.pop("smoke")
    if not smoke and arguments["data"] is None:
        parser.error("--data is needed")
    with tempfile.TemporaryDirectory() as folder:
        if smoke:
            write_noise(Path(folder) / "noise")
            arguments |= {"data": f"{folder}/noise"}
            arguments |= {"backbone": write_network(folder)}
            arguments |= {"image_size": 32, "depth": 1, "epochs": 1}
            arguments |= {"output": f"{folder}/out"}
        print(json.dumps(main(Config(**arguments))))

"""The README's Python runs as written, on noise and with a small backbone."""

import re
import runpy
from pathlib import Path

import numpy as np

import keras_transfer as ktr

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL
)
# What would need a network, or minutes.
SMALLER = {
    '"MobileNetV2", "ResNet50"': '"ResNet20"',
    '"VGG16"': '"network.keras"',
    '"MobileNetV2", alpha=0.35': '"network.keras"',
    '"MobileNetV2"': '"network.keras"',
    '"bert_base_en"': '"vectors.txt"',
    "depth=2, learning_rate=1e-4": "depth=1, learning_rate=1e-4",
    "image_size=224": "image_size=32",
    "(160, 160, 3)": "(32, 32, 3)",
    "epochs=5": "epochs=1",
    "epochs=10": "epochs=1",
    "epochs=3": "epochs=1",
    "folds=5": "folds=2",
    "trials=24": "trials=3",
    '"block_1?"': '"block_1*"',
    "data, [5, 20, None]": "data, [2], folds=2, epochs=1, "
    "from_scratch=ktr.FromScratch(epochs=1)",
}


def smaller(text):
    for old, new in SMALLER.items():
        text = text.replace(old, new)
    return text


def test_every_block_runs(tmp_path, capsys):
    smoke = runpy.run_path(str(ROOT / "recipes/_smoke.py"))
    write_noise = smoke["write_noise"]
    smoke["write_network"](".")
    for part in ("train", "test"):  # one flat folder of classes
        write_noise(tmp_path / "noise")
        for path in sorted((tmp_path / "noise" / part).rglob("*.png")):
            target = tmp_path / "flowers" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    words = {"good": "1 0", "bad": "0 1", "film": "1 1"}
    Path("vectors.txt").write_text(
        "".join(f"{word} {numbers}\n" for word, numbers in words.items())
    )
    Path("reviews.tsv").write_text(
        "".join(f"{w} film {i}\t{w}\n" for i in range(20) for w in words)
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
    targets = np.eye(10)[:4]
    names = {
        "np": np,
        "x_train": images,
        "y_train": targets,
        "x_val": images,
        "y_val": targets,
    }
    assert len(BLOCKS) >= 4
    for block in BLOCKS:
        if "data" in names:  # of two classes
            names |= {"y_train": np.eye(2)[[0, 1, 0, 1]]}
            names |= {"photos": names["data"], "drawings": names["data"]}
        exec(compile(smaller(block), "README.md", "exec"), names)
    assert ktr.class_names(tmp_path / "flowers.keras") == ("a", "b")
    assert "block_4" in capsys.readouterr().out

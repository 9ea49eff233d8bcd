import numpy as np
import pytest

from keras_transfer.data import load_images, load_texts

tfds = pytest.importorskip("tensorflow_datasets")


def noise(seed, width):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (8, width, 3), dtype=np.uint8)


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Noise images of two classes; its mere definition registers it."""

    VERSION = tfds.core.Version("1.2.3")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="same_size", description="8x8"),
        tfds.core.BuilderConfig(name="mixed_size", description="8xN"),
        tfds.core.BuilderConfig(name="offline", description="no network"),
        tfds.core.BuilderConfig(name="extra", description="needs a package"),
    ]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["disc", "box"]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        if self.builder_config.name == "offline":
            raise ConnectionError("no route to storage.example.org")
        if self.builder_config.name == "extra":
            raise ModuleNotFoundError("No module named 'pydub'", name="pydub")
        return {
            "train": self._generate_examples(20, 0),
            "test": self._generate_examples(6, 1),
        }

    def _generate_examples(self, count, seed):
        for i in range(count):
            yield i, {"image": self._image(i, seed), "label": i % 2}

    def _image(self, i, seed):
        mixed = self.builder_config.name == "mixed_size"
        return noise((seed, i), 8 + i % 3 if mixed else 8)


class TinyText(tfds.core.GeneratorBasedBuilder):
    """No images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": np.int64}
            ),
        )

    def _split_generators(self, dl_manager):
        return {}

    def _generate_examples(self):
        yield from ()


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "name", ["tiny_shapes", "tiny_shapes:1.2.3", "tiny_shapes/same_size"]
)
def test_tfds(name):
    data = load_images(f"tfds:{name}")
    assert data.class_names == ("disc", "box")
    assert [len(data.train), len(data.validation), len(data.test)] == [18, 2, 6]
    assert data.image_size == (8, 8)
    assert data.test.ids[0] == "test/000000"
    held = {data.test.image(i).tobytes(): data.test.labels[i] for i in range(6)}
    for i in range(6):
        assert held[noise((1, i), 8).tobytes()] == i % 2
    assert data.train.ids == load_images(f"tfds:{name}").train.ids


def test_images_of_different_sizes(data_dir):
    data = load_images("tfds:tiny_shapes/mixed_size")
    assert data.image_size is None
    with pytest.raises(ValueError, match="`image_size` must be given"):
        data.train.batches()
    data = load_images("tfds:tiny_shapes/mixed_size", image_size=6)
    assert data.train.image(0).shape == (6, 6, 3)


def test_class_names_give_the_order():
    names = ["box", "disc"]
    data = load_images("tfds:tiny_shapes", class_names=names)
    assert data.class_names == ("box", "disc")
    usual = load_images("tfds:tiny_shapes")
    np.testing.assert_array_equal(data.test.labels, 1 - usual.test.labels)
    with pytest.raises(ValueError, match="`class_names` must hold the classes"):
        load_images("tfds:tiny_shapes", class_names=["box", "ball"])


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="'tiny_shape'. Did you mean 'tiny_sh"):
        load_images("tfds:tiny_shape")
    with pytest.raises(
        ValueError, match="an existing config and version of the data"
    ):
        load_images("tfds:tiny_shapes/no_such_config")


def test_not_prepared_and_no_network():
    with pytest.raises(
        ValueError,
        match="not prepared in .* no route to .* set TFDS_DATA_DIR to its",
    ):
        load_images("tfds:tiny_shapes/offline")


def test_a_package_that_tfds_needs_is_missing():
    with pytest.raises(ImportError, match="needs .*: pip install pydub"):
        load_images("tfds:tiny_shapes/extra")


def test_no_image_classification():
    with pytest.raises(ValueError, match="with one Image and one ClassLabel"):
        load_images("tfds:tiny_text")
    with pytest.raises(
        ValueError, match="`multi_label` must be False for a TF"
    ):
        load_images("tfds:tiny_shapes", multi_label=True)


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """Texts of two classes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["pos", "neg"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(20, "train"),
            "test": self._generate_examples(6, "test"),
        }

    def _generate_examples(self, count, split):
        for i in range(count):
            yield i, {"text": f"café {split} {i}", "label": i % 2}


def test_texts():
    data = load_texts("tfds:tiny_reviews")
    assert data.class_names == ("pos", "neg")
    assert [len(data.train), len(data.validation), len(data.test)] == [18, 2, 6]
    found = dict(zip(data.test.texts, data.test.labels, strict=True))
    assert found == {f"café test {i}": i % 2 for i in range(6)}
    ordered = load_texts("tfds:tiny_reviews", class_names=["neg", "pos"])
    assert ordered.class_names == ("neg", "pos")
    assert ordered.test.labels.sum() == 3
    with pytest.raises(ValueError, match="with one Text and one ClassLabel"):
        load_texts("tfds:tiny_shapes")

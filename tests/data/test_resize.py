"""Ways to resize images of other proportions, from every source."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_transfer import load_images
from keras_transfer.data.examples import examples_of
from keras_transfer.data.images.decoding import resize_array
from keras_transfer.experiments.folds import pool_labelled

ALL = (1.0, 0.0, 0.0)

# Three columns of 20 pixels, 20 high: white, grey, black.
STRIPES = np.repeat(np.array([255, 128, 0], "uint8"), 20)[None].repeat(20, 0)


def stripes(channels):
    return np.repeat(STRIPES[..., None], channels, axis=2)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("tall", [False, True])
def test_each_way_shows_what_it_says(channels, tall):
    image = stripes(channels)
    image = image.swapaxes(0, 1) if tall else image

    def resized(size, resize):
        array = resize_array(image, size, resize)
        assert array.shape == (*size, channels) and array.dtype == np.uint8
        assert (array == array[..., :1]).all()
        return (array.swapaxes(0, 1) if tall else array)[..., 0]

    stretched = resized((12, 12), "stretch")
    assert stretched[6, 0] == 255 and stretched[6, 11] == 0
    cropped = resized((10, 10), "crop")
    assert (cropped[:, 1:-1] == 128).all()  # the middle third alone
    padded = resized((12, 12), "pad")
    assert (padded[:4] == 0).all() and (padded[8:] == 0).all()
    assert padded[6, 0] == 255 and padded[6, 6] == 128 and padded[6, 11] == 0
    # Nothing is cut or added where the proportions are the same.
    size = (30, 10) if tall else (10, 30)
    for resize in ("crop", "pad"):
        np.testing.assert_array_equal(
            resized(size, resize), resized(size, "stretch")
        )


@pytest.fixture
def sources(tmp_path):
    """The same six images as a folder, as arrays and as a dataset."""
    images = [np.roll(stripes(3), 5 * i, axis=1) for i in range(6)]
    for i, image in enumerate(images):
        folder = tmp_path / "images" / "ab"[i // 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    labels = [0, 0, 0, 1, 1, 1]
    arrays = (np.stack(images), labels)
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    return {"folder": tmp_path / "images", "arrays": arrays, "data": dataset}


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_sources_are_resized_alike(sources, resize):
    options = {"image_size": (12, 12), "resize": resize, "split": ALL}
    read = [load_images(source, **options) for source in sources.values()]
    expected = [
        resize_array(image, (12, 12), resize) for image in sources["arrays"][0]
    ]
    for data in read:
        assert data.resize == resize
        np.testing.assert_array_equal(data.train.arrays()[0], expected)


def test_features_are_stored_by_the_way(sources):
    def reading(resize):
        data = load_images(
            sources["folder"], image_size=12, resize=resize, split=ALL
        )
        return data, examples_of(data.train).reading

    read = {name: reading(name) for name in ("stretch", "crop", "pad")}
    assert "resize" not in read["stretch"][1]  # the key of arrays
    assert read["crop"][1] != read["pad"][1] != read["stretch"][1]
    digests = {pool_labelled(data).digest for data, _ in read.values()}
    assert len(digests) == 3  # cross-validation does not resume another's


def test_wrong_resize(sources):
    with pytest.raises(ValueError, match='"stretch" or "crop" or "pad"'):
        load_images(sources["folder"], resize="squash")

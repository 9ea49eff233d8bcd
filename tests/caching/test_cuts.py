"""Where a model can be cut, and what computing a part of it costs."""

import keras
import numpy as np
import pytest
from training._networks import NETWORKS, build

import keras_transfer as ktr
from keras_transfer.caching.cost import count_flops, speed_up_bound
from keras_transfer.caching.cuts import Cut, find_cut, halves, network_to
from keras_transfer.caching.eligibility import Ineligible

IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype("f4")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cut_follows_what_is_open(name):
    model = build(name)
    blocks = ktr.blocks(model)
    assert find_cut(model) == Cut(0, True, "after pooling")
    for depth in range(1, len(blocks)):
        ktr.unfreeze(model, depth)
        cut = find_cut(model)
        assert cut.depth == depth
        assert cut.name == f"after {blocks[-depth - 1].name}"
        below, above = halves(model, cut)
        assert not below.trainable_variables
        np.testing.assert_allclose(
            above(below(IMAGES)), model(IMAGES), atol=1e-6
        )
    ktr.unfreeze(model, "all")
    assert find_cut(model) == Ineligible("its first block trains")


def test_an_open_first_block_leaves_no_cut():
    model = build("chain")
    ktr.unfreeze(model, "all")
    ktr.freeze(model, ["block_2", "block_3", "block_4"])
    assert find_cut(model) == Ineligible("its first block trains")


def test_batch_norm_in_training_mode_is_above_the_cut():
    model = build("chain")
    model.get_layer("backbone").get_layer("block_3_norm").trainable = True
    assert find_cut(model).depth == 2


def test_a_model_without_head():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="block_1")(inputs)
    outputs = keras.layers.Dense(2, name="block_2")(x)
    model = keras.Model(inputs, outputs)
    model.get_layer("block_1").trainable = False
    assert find_cut(model).depth == 1
    model.get_layer("block_2").trainable = False
    assert find_cut(model).depth == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_gives_several_cuts_and_goes_on_from_any(name):
    model = build(name)
    cuts = [Cut(2, False, ""), Cut(1, False, ""), Cut(0, True, "")]
    alone = [network_to(model, [cut])(IMAGES) for cut in cuts]
    expected = [np.asarray(t) for t in keras.tree.flatten(alone)]
    together = keras.tree.flatten(network_to(model, cuts)(IMAGES))
    further = keras.tree.flatten(
        network_to(model, cuts, start=cuts[0])(alone[0])
    )
    for some in (together, further):
        assert len(some) == len(expected)
        for tensor, other in zip(some, expected, strict=True):
            np.testing.assert_allclose(tensor, other, atol=1e-6)


def test_flops_of_known_layers():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)  # 2*27*4*64
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5)(x)
    model = keras.Model(inputs, x)
    expected = 2 * 27 * 4 * 64 + 2 * 9 * 4 * 16 + 4 + 2 * 4 * 5
    assert count_flops(model, [(8, 8, 3)]) == expected
    nested = keras.Model(inputs, model(inputs))
    assert count_flops(nested, [(8, 8, 3)]) == expected


def test_flops_of_a_network_that_takes_any_size():
    backbone = ktr.load_backbone(
        "MobileNetV2", weights=None, input_shape=(None, None, 3)
    )
    # 300 million multiply-adds at 224 pixels, by its paper, the classifier's
    # 1.3 million left out.
    flops = count_flops(backbone.model, [(224, 224, 3)])
    assert flops / 2 == pytest.approx(300e6, rel=0.05)


def test_the_bound_of_the_speed_up():
    assert speed_up_bound(0.0, 10) == 1.0
    assert speed_up_bound(1.0, 10) == pytest.approx(10)
    share = 0.8
    expected = (share + 0.6) / (share / 20 + 0.6)
    assert speed_up_bound(share, 20) == pytest.approx(expected)

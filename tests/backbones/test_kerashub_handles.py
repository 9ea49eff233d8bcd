"""Networks of KerasHub as backbones of images: presets, folders, errors."""

import json
import sys

import keras
import numpy as np
import pytest
from conformance._kerashub import IMAGES, VIT, enliven

import keras_transfer as ktr
from keras_transfer.caching.store import FeatureStore

hub = pytest.importorskip("keras_hub")


def images(count=12, size=32, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, size, size, 3), "uint8")


@pytest.fixture(scope="module")
def vit():
    network = hub.models.ViTBackbone(**IMAGES["ViT"][0])
    enliven(network)
    return network


@pytest.fixture(scope="module")
def preset(vit, tmp_path_factory):
    """A folder with a task: backbone, classifier and image converter."""
    converter = hub.layers.ViTImageConverter(
        image_size=(32, 32),
        scale=[1 / 58.395, 1 / 57.12, 1 / 57.375],
        offset=[-2.1179, -2.0357, -1.8044],
    )
    task = hub.models.ViTImageClassifier(
        vit,
        num_classes=2,
        preprocessor=hub.models.ViTImageClassifierPreprocessor(converter),
    )
    folder = tmp_path_factory.mktemp("presets") / "tiny_vit" / "2"
    task.save_to_preset(str(folder))
    return folder


@pytest.fixture(scope="module")
def data():
    x = images(60)
    x[::3, :, :, 0] = 0
    return ktr.load_images((x, np.arange(60) % 3), split=(0.6, 0.2, 0.2))


# --- Where networks come from ---


def test_a_preset(preset, vit):
    backbone = ktr.load_backbone(f"kerashub:{preset}")
    assert backbone.name == "tiny_vit"
    assert backbone.input_shape == (32, 32, 3)
    assert backbone.spec.default_size == 32
    assert backbone.spec.source == "keras_hub"
    x = images()
    converter = hub.layers.ImageConverter.from_preset(str(preset))
    scaled = backbone.preprocessing(x)
    np.testing.assert_allclose(scaled, converter(x), atol=1e-5)
    np.testing.assert_allclose(
        backbone.model(scaled), vit(converter(x)), rtol=1e-4, atol=1e-4
    )


def test_new_random_weights(preset):
    keras.utils.set_random_seed(1)
    new = ktr.load_backbone(f"kerashub:{preset}", weights=None)
    old = ktr.load_backbone(f"kerashub:{preset}")
    pairs = zip(new.model.weights, old.model.weights, strict=True)
    same = [np.array_equal(a, b) for a, b in pairs]
    assert not all(same)


def test_a_task(preset):
    task = hub.models.ImageClassifier.from_preset(str(preset))
    backbone = ktr.load_backbone(task)
    x = images()
    scaled = task.preprocessor.image_converter(x)
    features = backbone.model(backbone.preprocessing(x))
    np.testing.assert_allclose(
        features, task.backbone(scaled), rtol=1e-4, atol=1e-4
    )
    # A copy: the user's object stays as it was.
    backbone.model.weights[0].assign(backbone.model.weights[0] + 1)
    assert not np.allclose(backbone.model.weights[0], task.backbone.weights[0])


def hugging_face(folder):
    """A ViT as Hugging Face saves it; random weights."""
    safetensors = pytest.importorskip("safetensors.numpy")
    generator = np.random.default_rng(0)
    width, inner = 8, 16
    shapes = {
        "embeddings.patch_embeddings.projection.weight": (width, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 5, width),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    dense = {
        "attention.attention.query": (width, width),
        "attention.attention.key": (width, width),
        "attention.attention.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        for name, shape in dense.items():
            shapes[f"{at}.{name}.weight"] = shape
            shapes[f"{at}.{name}.bias"] = shape[:1]
        for name in ("layernorm_before", "layernorm_after"):
            shapes[f"{at}.{name}.weight"] = (width,)
            shapes[f"{at}.{name}.bias"] = (width,)
    tensors = {
        f"vit.{name}": generator.normal(0, 0.5, shape).astype("float32")
        for name, shape in shapes.items()
    }
    safetensors.save_file(tensors, folder / "model.safetensors")
    config = {
        "model_type": "vit",
        "image_size": 32,
        "patch_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": width,
        "intermediate_size": inner,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "qkv_bias": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def test_a_folder_of_hugging_face(tmp_path):
    tensors = hugging_face(tmp_path)
    with pytest.raises(ValueError, match="`pixel_range` must be the"):
        ktr.load_backbone(f"kerashub:{tmp_path}")
    backbone = ktr.load_backbone(f"kerashub:{tmp_path}", pixel_range="[-1, 1]")
    assert len(ktr.blocks(backbone.model)) == 3
    first = np.asarray(ktr.blocks(backbone.model)[0].weights[1])
    kernel = tensors["vit.embeddings.patch_embeddings.projection.weight"]
    np.testing.assert_array_equal(first, kernel.transpose(2, 3, 1, 0))
    # Dropout is off: a frozen prefix is the same in each epoch.
    x = images(2).astype("float32")
    still = backbone.model(x, training=True)
    np.testing.assert_array_equal(still, backbone.model(x))


@pytest.mark.slow
def test_a_folder_of_timm(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    generator = np.random.default_rng(0)
    filters = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    places = [0, 3, 6, 8, 11, 13, 16, 18]
    tensors = {}
    for place, given, made in zip(
        places, filters[:-1], filters[1:], strict=True
    ):
        kernel = generator.normal(0, 0.02, (made, given, 3, 3))
        tensors[f"features.{place}.weight"] = kernel.astype("float32")
        tensors[f"features.{place}.bias"] = np.zeros(made, "float32")
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    config = {
        "architecture": "vgg11",
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "interpolation": "bilinear",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = ktr.load_backbone(f"kerashub:{tmp_path}")
    assert backbone.spec.default_size == 64
    assert backbone.spec.normalization == "torch"
    assert [block.name for block in ktr.blocks(backbone.model)] == [
        f"block{number}" for number in range(1, 6)
    ]


def test_another_image_size(preset):
    network = hub.models.ResNetBackbone(**IMAGES["ResNet"][0])
    backbone = ktr.load_backbone(
        network, pixel_range="[0, 1]", input_shape=(48, 40, 1)
    )
    assert backbone.input_shape == (48, 40, 1)
    x = images(2, 48)[:, :, :40, :1]
    colour = np.repeat(x, 3, axis=-1) / 255
    found = backbone.model(backbone.preprocessing(x))
    wanted = hub.models.ResNetBackbone(
        **{**IMAGES["ResNet"][0], "image_shape": (48, 40, 3)}
    )
    wanted.set_weights(network.get_weights())
    np.testing.assert_allclose(found, wanted(colour), rtol=1e-4, atol=1e-5)
    for source in (
        f"kerashub:{preset}",
        hub.models.ViTBackbone(**IMAGES["ViT"][0]),
    ):
        with pytest.raises(ValueError, match="`input_shape` must fit"):
            ktr.load_backbone(
                source, input_shape=(64, 64, 3), pixel_range="[0, 1]"
            )


def test_dinov2_in_another_size(tmp_path):
    """Position embeddings are interpolated, and saved as they were trained."""
    small = hub.models.DINOV2Backbone(**IMAGES["DINOV2"][0])
    enliven(small)
    small.save_to_preset(str(tmp_path / "preset"))
    backbone = ktr.load_backbone(
        f"kerashub:{tmp_path / 'preset'}",
        input_shape=(64, 64, 3),
        pixel_range="[0, 1]",
    )
    model = ktr.build_classifier(backbone, 2)
    (weight,) = [w for w in model.weights if "interpolated" in w.path]
    weight.assign(weight - np.linspace(0, 1, 65).reshape(1, 65, 1))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = images(2, 64)
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)


# --- What is done with them ---


def test_plain_keras_where_nothing_needs_kerashub(tmp_path):
    network = hub.models.ResNetBackbone(**IMAGES["ResNet"][0])
    model = ktr.build_classifier(
        ktr.load_backbone(network, pixel_range="[0, 1]"), 2
    )
    assert "keras_hub" not in model.to_json()


def test_cached_training_equals_direct(preset, data):
    weights = []
    for store in ("memory", None):
        keras.utils.set_random_seed(0)
        model = ktr.build_classifier(f"kerashub:{preset}", data=data)
        ktr.fine_tune(
            model,
            data,
            strategy="fine-tune",
            depth=1,
            epochs=3,
            store=store,
            seed=0,
            verbose=0,
        )
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_has_no_row_for_each_image_is_not_kept(data):
    """DINOv3's blocks read sines and cosines of positions."""
    network = hub.models.DINOV3Backbone(**IMAGES["DINOV3"][0])
    enliven(network)
    found = []
    for store in ("memory", False):
        keras.utils.set_random_seed(0)
        backbone = ktr.load_backbone(network, pixel_range="[0, 1]")
        model = ktr.build_classifier(backbone, data=data)
        run = ktr.fine_tune(
            model,
            data,
            strategy="fine-tune",
            depth=1,
            epochs=2,
            batch_size=16,
            store=store,
            seed=0,
            verbose=0,
        )
        found.append(model.get_weights())
        if store:
            assert "no row for each example" in run.plan.explain()
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    every = ktr.extract_features(
        backbone, data, layers="*", store="memory", verbose=0
    )
    assert every.train.shape[-1] == 8 * len(ktr.blocks(backbone.model))


@pytest.mark.parametrize("family", ["ViT", "SwinTransformer", "DeiT"])
def test_features_are_found_again(family, data, tmp_path):
    """Also where KerasHub's layers cannot say how they were made."""
    original = getattr(hub.models, f"{family}Backbone")(**IMAGES[family][0])
    original.save_to_preset(str(tmp_path / "preset"))
    computed = []
    for change in (0, 0, 1):
        backbone = ktr.load_backbone(
            f"kerashub:{tmp_path / 'preset'}", pixel_range="[0, 1]"
        )
        weight = backbone.model.weights[-1]
        weight.assign(weight + change)
        found = ktr.extract_features(
            backbone, data, store=FeatureStore(tmp_path / "store"), verbose=0
        )
        computed.append(found.computed)
    assert computed == [60, 0, 60]


@pytest.mark.parametrize(
    "pooling", ["avg", "max", "avgmax", "gem", "flatten", "token"]
)
def test_heads(preset, vit, pooling):
    backbone = ktr.load_backbone(f"kerashub:{preset}")
    model = ktr.build_classifier(backbone, 3, pooling=pooling)
    x = images()
    sequence = np.asarray(backbone.model(backbone.preprocessing(x)))
    vectors = {
        "avg": sequence.mean(1),
        "max": sequence.max(1),
        "avgmax": np.concatenate([sequence.mean(1), sequence.max(1)], 1),
        "gem": (np.maximum(sequence, 1e-6) ** 3).mean(1) ** (1 / 3),
        "flatten": sequence.reshape(len(x), -1),
        "token": sequence[:, 0],
    }[pooling]
    kernel, bias = (np.asarray(w) for w in model.get_layer("head").weights)
    logits = vectors @ kernel + bias
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(model(x), wanted, atol=1e-5)


# --- Errors ---


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        ("kerashub:resnet_18_imagnet", "Did you mean 'resnet_18_imagenet'"),
        ("kerashub:no/such/folder", "existing folder or one of the"),
    ],
)
def test_unknown(handle, message):
    with pytest.raises(ValueError, match=message):
        ktr.load_backbone(handle)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(ValueError, match="a folder that KerasHub reads"):
        ktr.load_backbone(f"kerashub:{tmp_path}")


def test_no_network(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(hub.models.Backbone, "from_preset", fail)
    with pytest.raises(ConnectionError, match="Either connect"):
        ktr.load_backbone("kerashub:resnet_18_imagenet")


def test_not_installed(monkeypatch, preset):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"pip install .*\[kerashub\]"):
        ktr.load_backbone(f"kerashub:{preset}")


def test_text_is_for_another_builder():
    bert = hub.models.BertBackbone(
        10, **{**VIT, "num_layers": 1}, intermediate_dim=8
    )
    with pytest.raises(ValueError, match="`build_text_classifier`"):
        ktr.load_backbone(bert, pixel_range="[0, 1]")


def test_wrong_options(preset, vit):
    handle = f"kerashub:{preset}"
    with pytest.raises(TypeError, match="must be `pixel_range`"):
        ktr.load_backbone(handle, alpha=0.5)
    with pytest.raises(ValueError, match='"pretrained" or None'):
        ktr.load_backbone(handle, weights="some.weights.h5")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        ktr.load_backbone(handle, input_shape=(32, 32, 4))
    with pytest.raises(ValueError, match="`pixel_range` must be the"):
        ktr.load_backbone(vit)
    with pytest.raises(ValueError, match='`pooling="token"` needs'):
        ktr.build_classifier("ResNet20", 2, pooling="token")


def test_a_model_around_a_network(preset):
    built = ktr.build_classifier(f"kerashub:{preset}", 2)
    with pytest.raises(ValueError, match=r'get_layer\("backbone"\)'):
        ktr.load_backbone(built, pixel_range="[0, 255]")
    child = built.get_layer("backbone")
    again = ktr.load_backbone(child, pixel_range="[0, 1]")
    x = images(2) / 255
    np.testing.assert_array_equal(again.model(x), child(x))
    assert not {id(w) for w in again.model.weights} & {
        id(w) for w in child.weights
    }

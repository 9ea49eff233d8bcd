"""Every family of KerasHub: builds, has blocks, splits, trains, saves."""

import keras
import numpy as np
import pytest

import keras_transfer as ktr

from ._kerashub import IMAGES, TEXTS, WORDS, enliven

hub = pytest.importorskip("keras_hub")

_QUICK = ("Bert", "GPT2", "ResNet", "ViT")


# Those that CI runs: plain layers, stacks of blocks, embeddings of positions
# that are interpolated, blocks that cannot be called one by one, several
# outputs; and every set of inputs, shared weights, experts, a network that is
# one block.
_STRUCTURES = {
    *("ResNet", "EfficientNet", "MobileNet", "ViT"),
    *("DINOV2", "DeiT", "HGNetV2", "MiT"),
    *("Bert", "Albert", "FNet", "ESM", "DebertaV3", "GPT2", "Mixtral", "XLNet"),
}


def speed(family):
    """The marks that say who runs a family."""
    if family not in _STRUCTURES:
        return [pytest.mark.exhaustive]
    return [] if family in _QUICK else [pytest.mark.slow]


def families(table):
    """The families as parameters."""
    marks = {"XLNet": pytest.mark.filterwarnings("ignore:Gradients do not exi")}
    return [
        pytest.param(
            name,
            marks=[
                *speed(name),
                *([marks[name]] if name in marks else []),
            ],
        )
        for name in table
    ]


def make(family):
    keras.utils.set_random_seed(0)
    original = getattr(hub.models, f"{family}Backbone")(**IMAGES[family][0])
    enliven(original)
    return original


def images(count=2):
    generator = np.random.default_rng(1)
    return generator.uniform(0, 255, (count, 32, 32, 3)).astype("float32")


def call(network, x):
    """What KerasHub makes of images in the range of its network."""
    inputs = keras.tree.pack_sequence_as(network._inputs_struct, [x])
    outputs = network(inputs)
    return list(outputs.values())[-1] if isinstance(outputs, dict) else outputs


def gap(found, wanted):
    """Largest difference, relative to the largest number."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def test_the_table_is_complete():
    """All families that take one batch of images and nothing else."""
    others = {
        # Made of a backbone of the table and more.
        *("BASNet", "DFine", "DeepLabV3", "RetinaNet", "SAM", "SegFormer"),
        *("DepthAnything", "PARSeq", "StableDiffusion3", "FeaturePyramid"),
        # They take text or sound, too; CLIP and SigLIP are below.
        *("CLIP", "SigLIP", "MetaCLIP2", "PaliGemma", "Flux", "VideoPrism"),
        "Gemma3n",
    }
    takes_images = {
        name.removesuffix("Backbone")
        for name in dir(hub.models)
        if name.endswith("Backbone")
        and {"image_shape", "input_shape"}
        & {*getattr(hub.models, name).__init__.__code__.co_varnames}
    }
    assert takes_images - others == set(IMAGES)


@pytest.mark.parametrize("family", families(IMAGES))
def test_an_image_family(family, tmp_path):
    original = make(family)
    backbone = ktr.load_backbone(original, pixel_range="[0, 1]")
    x = images()
    wanted = np.asarray(call(original, x / 255))
    found = np.asarray(backbone.model(backbone.preprocessing(x)))
    assert gap(found, wanted) < 1e-4
    assert backbone.num_features == wanted.shape[-1]

    check(
        ktr.build_classifier(backbone, 3),
        IMAGES[family][1],
        images(4),
        tmp_path,
    )


def check(model, names, x, folder):
    """Blocks, cuts, training and saving of a classifier of three classes."""
    blocks = ktr.blocks(model)
    if names is not None:
        endings = zip(blocks, names, strict=True)
        assert all(block.name.endswith(name) for block, name in endings)
    covered = [id(weight) for block in blocks for weight in block.weights]
    child = model.get_layer("backbone")
    assert sorted(covered) == sorted(id(weight) for weight in child.weights)

    whole = np.asarray(model(x))
    for depth in range(len(blocks) + 1):
        prefix, suffix = ktr.split(model, depth)
        np.testing.assert_allclose(suffix(prefix(x)), whole, atol=1e-6)

    ktr.unfreeze(model, 1)
    before = {id(w): np.array(w) for w in model.weights}
    opened = {id(weight) for weight in blocks[-1].weights}
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.array([0, 1, 2, 0]), verbose=0)
    moved = {
        id(w) for w in child.weights if not np.array_equal(before[id(w)], w)
    }
    assert moved and moved <= opened

    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)
    trains = [weight.trainable for weight in model.weights]
    assert [weight.trainable for weight in again.weights] == trains


@pytest.mark.parametrize("family", ["CLIP", "SigLIP"])
def test_the_half_for_images(family):
    sizes = {
        "patch_size": 16,
        "hidden_dim": 8,
        "num_layers": 2,
        "num_heads": 2,
        "intermediate_dim": 16,
    }
    vision = getattr(hub.models, f"{family}VisionEncoder")(
        **sizes, image_shape=(32, 32, 3)
    )
    del sizes["patch_size"]
    text = getattr(hub.models, f"{family}TextEncoder")(
        **sizes,
        vocabulary_size=10,
        embedding_dim=8,
        max_sequence_length=4,
    )
    options = {"projection_dim": 8} if family == "CLIP" else {}
    both = getattr(hub.models, f"{family}Backbone")(vision, text, **options)
    enliven(both)
    backbone = ktr.load_backbone(both, pixel_range="[-1, 1]")
    x = images()
    found = backbone.model(backbone.preprocessing(x))
    assert gap(found, call(both.vision_encoder, x / 127.5 - 1)) < 1e-4
    assert len(ktr.blocks(backbone.model)) >= 3


def texts():
    return np.array(["a b c", "d", "g f e d c b a", "unknown a"], dtype=object)


def padded(pad, rows, length):
    """Token ids and mask, by hand."""
    ids = np.full((len(rows), length), pad, "int32")
    for row, text in zip(ids, rows, strict=True):
        words = [WORDS.index(w) if w in WORDS else 0 for w in text.split()]
        words = [2, *words, 3][:length]
        row[: len(words)] = words
    mask = np.arange(length) < [[len(t.split()) + 2] for t in rows]
    return ids, mask.astype("int32")


def test_the_table_of_texts_is_complete():
    """All families that take token ids, and what goes with them."""
    others = {
        # They write: another text goes in beside the first one.
        *("Bart", "T5", "T5Gemma", "T5Gemma2", "Moonshine", "Whisper"),
        # They take images or sound as well.
        *("BLIP2", "Gemma3n", "Gemma4", "PaliGemma", "CLIP", "SigLIP"),
        *("MetaCLIP2", "VideoPrism", "PARSeq", "StableDiffusion3", "Flux"),
        # Other names for the same class, and for half of one.
        *("ESM2", "Qwen2", "SmolLM", "EdRec"),
    }
    takes_texts = {
        name.removesuffix("Backbone")
        for name in dir(hub.models)
        if name.endswith("Backbone")
        and {"vocabulary_size", "vocab_size"}
        & {*getattr(hub.models, name).__init__.__code__.co_varnames}
    }
    assert takes_texts - others == set(TEXTS)


@pytest.mark.parametrize("family", families(TEXTS))
def test_a_text_family(family, tmp_path):
    keras.utils.set_random_seed(0)
    make_network = getattr(hub.models, f"{family}Backbone")
    # Named: Keras would number it by what the process made before.
    original = make_network(**TEXTS[family][0], name="network")
    enliven(original)
    tokenizer = hub.models.BertTokenizer(WORDS)
    backbone = ktr.load_text_backbone(
        original, tokenizer=tokenizer, sequence_length=12
    )
    pad = getattr(original, "pad_token_id", tokenizer.pad_token_id)
    ids, mask = padded(pad, texts(), 12)
    given = {
        "token_ids": ids,
        "padding_mask": mask,
        "segment_ids": np.zeros_like(ids),
    }
    taken = original.input if isinstance(original.input, dict) else {}
    wanted = original({name: given[name] for name in taken or ["token_ids"]})
    if isinstance(wanted, dict):
        wanted = wanted["sequence_output"]
    there = mask[..., None]
    wanted = (np.asarray(wanted) * there).sum(1) / there.sum(1)
    found = backbone.model(backbone.preprocessing(texts()))
    assert gap(found, wanted) < 1e-4
    model = ktr.build_text_classifier(backbone, 3)
    check(model, TEXTS[family][1], texts(), tmp_path)

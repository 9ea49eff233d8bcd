"""Texts become the tokens of the pretraining, in every alphabet."""

import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_transfer as ktr
from keras_transfer.backbones import text_cleaning
from keras_transfer.backbones.kerashub.loading import take_cleaning
from keras_transfer.backbones.tokens import TextTokenizer

ODD = (
    "Café Zürich naïve",
    "cafe\u0301",
    "here\u00a0now",
    "thin\u2009space em\u2003space line\u2028end",
    "zero\u200bwidth soft\u00adhyphen bom\ufeff",
    "tab\there new\nline\rreturn",
    "bell\x07inside nul\x00byte",
    "bad \ufffd character",
    "МОСКВА Москва ёлка",
    # Not "ΟΔΟΣ": Rust has no final sigma, Python, of the pretraining, has one.
    "Αθήνα λόγος",
    "Straße STRASSE",
    "İstanbul ıspanak",
    "Ångström Ørsted Łódź",
    "Việt Nam",
    "日本語 漢字 ひらがな カタカナ",
    "한국어 단어",
    "العَرَبِيَّة",
    "नमस्ते",
    "don't o’clock “quoted” «guillemets»",
    "a+b=c $5 50% #tag @name",
    "e-mail well-known 3.5 1,000",
    "hello,world ... !!!",
    "emoji 😀 family 👨‍👩‍👧",
    "ﬁne ligature ²",
    "",
    "   ",
)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip", [None, True, False])
def test_tokens_are_those_of_hugging_face(lowercase, strip):
    tokenizers = pytest.importorskip("tokenizers")
    hub = pytest.importorskip("keras_hub")
    characters = sorted(
        {
            form
            for text in ODD
            for kept in (text, text.lower())
            for made in ("NFC", "NFD")
            for form in unicodedata.normalize(made, kept)
            if unicodedata.category(form)[0] not in "CZ"
        }
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    words += [f"##{character}" for character in characters]
    normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip
    )
    model = tokenizers.models.WordPiece(
        {word: place for place, word in enumerate(words)},
        unk_token="[UNK]",
    )
    oracle = tokenizers.Tokenizer(model)
    oracle.normalizer = normalizer
    oracle.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    config = {"strip_accents": strip}
    tokenizer = hub.tokenizers.BertTokenizer(words, lowercase=lowercase)
    cleaning = text_cleaning.uncased_options(config, lowercase)
    assert take_cleaning(tokenizer, "nowhere") == (
        text_cleaning.uncased_options({}, lowercase)
    )
    layer = TextTokenizer(tokenizer, 64, cleaning=cleaning)
    found = np.asarray(layer(tf.constant(ODD)))
    for text, row in zip(ODD, found, strict=True):
        ids = [int(token) for token in row if token >= 0][1:-1]
        assert ids == oracle.encode(text).ids, text
    again = TextTokenizer.from_config(layer.get_config())
    assert again.cleaning == cleaning


def test_an_old_file_reads_texts_as_it_did():
    hub = pytest.importorskip("keras_hub")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "café"]
    tokenizer = hub.tokenizers.BertTokenizer(words, lowercase=True)
    layer = TextTokenizer(tokenizer, 8)
    assert layer.get_config()["cleaning"] is None
    assert np.asarray(layer(tf.constant(["Café"])))[0, 1] == 5


# --- Word vectors ---

WORDS = (
    "москва",
    "École",
    "über",
    "don't",
    "city",
    "well-known",
    "3.5",
    "u.s.",
)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "some.vec"
    rows = np.eye(len(WORDS), dtype=int)
    lines = [
        " ".join([word, *map(str, row)])
        for word, row in zip(WORDS, rows, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("москва", 0), ("Москва", 0), ("МОСКВА", 0), ("мОсква", 0),
        ("«Москва»", 0), ("(москва),", 0), ("„москва“", 0), ("москва…", 0),
        ("москва\u00a0", 0), ("école", 1), ("École", 1), ("ÉCOLE!", 1),
        ("Über", 2), ("don't", 3), ("Don’t", 3), ("'don't'", 3),
        ("City", 4), ("City.", 4), ("[city]", 4), ("$city", 4),
        ("Well-known", 5), ("3.5", 6), ("U.S.", 7), ("U.S", 7),
    ],
)  # fmt: skip
def test_a_word_of_the_file_is_found(vectors, text, place):
    backbone = ktr.load_text_backbone(vectors)
    found = backbone.model(backbone.preprocessing(tf.constant([text])))
    np.testing.assert_allclose(found[0], np.eye(len(WORDS))[place])


def test_marks_separate_words(vectors):
    backbone = ktr.load_text_backbone(vectors)
    found = backbone.model(
        backbone.preprocessing(tf.constant(["city,über; (москва)—École"]))
    )
    expected = np.eye(len(WORDS))[[4, 2, 0, 1]].mean(axis=0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_words_of_every_alphabet_survive_saving(vectors, tmp_path):
    data = ktr.load_texts((["Москва city", "École über"] * 8, [0, 1] * 8))
    model = ktr.build_text_classifier(str(vectors), data=data)
    model.save(tmp_path / "model.keras")
    again = ktr.load_model(tmp_path / "model.keras")
    texts = tf.constant(["МОСКВА", "«école»"])
    np.testing.assert_array_equal(model(texts), again(texts))
    assert "unknown-tokens" not in [f.name for f in ktr.check(model, data)]
    unknown = ktr.load_texts((["foo bar", "city baz"] * 8, [0, 1] * 8))
    (finding,) = [
        f for f in ktr.check(model, unknown) if f.name == "unknown-tokens"
    ]
    assert "75% of the tokens" in finding.message


def test_plain_words_need_no_code_of_ours(tmp_path):
    path = tmp_path / "some.vec"
    path.write_text("city 1 0\nhere 0 1\n")
    backbone = ktr.load_text_backbone(path)
    (layer,) = [
        layer
        for layer in backbone.preprocessing.layers
        if isinstance(layer, keras.layers.TextVectorization)
    ]
    assert layer.get_config()["standardize"] == "lower_and_strip_punctuation"

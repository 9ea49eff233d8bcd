"""`load_texts`: sources, splits, what is reported, errors."""

import os

import numpy as np
import pytest

from keras_transfer import load_texts

ALL = (1.0, 0.0, 0.0)
ROWS = [("a good film", "pos"), ("a bad film", "neg")] * 2


def write(path, lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def pairs(split):
    names = [split.class_names[label] for label in split.labels]
    return list(zip(split.texts.tolist(), names, strict=True))


# --- Sources ---


def test_a_csv_with_a_header(tmp_path):
    lines = ["id,Label,Text", '1,pos,"good, very"', "2,neg,bad"]
    data = load_texts(write(tmp_path / "x.csv", lines), split=ALL)
    assert data.class_names == ("neg", "pos")
    assert pairs(data.train) == [("good, very", "pos"), ("bad", "neg")]
    assert data.train.ids == ("x.csv:2", "x.csv:3")


def test_a_tsv_without_a_header(tmp_path):
    """Quotation marks in tab-separated texts quote nothing."""
    lines = ['he said "good\t1', "bad\t0", "", 'it said "fine\t1']
    data = load_texts(str(write(tmp_path / "x.tsv", lines)), split=ALL)
    assert pairs(data.train) == [
        ('he said "good', "1"),
        ("bad", "0"),
        ('it said "fine', "1"),
    ]


def test_columns_by_name_and_number(tmp_path):
    named = write(tmp_path / "x.csv", ["a,b,c", "1,good,x", "0,bad,y"])
    data = load_texts(named, text_column="b", label_column="a", split=ALL)
    assert pairs(data.train) == [("good", "1"), ("bad", "0")]
    bare = write(tmp_path / "y.csv", ["1,good", "0,bad"])
    data = load_texts(bare, text_column=1, label_column=0, split=ALL)
    assert pairs(data.train) == [("good", "1"), ("bad", "0")]


def test_a_column_of_splits(tmp_path):
    lines = [
        "text,label,split",
        "a,1,train",
        "b,0,train",
        "c,1,dev",
        "d,0,test",
    ]
    data = load_texts(write(tmp_path / "x.csv", lines))
    assert [len(data.train), len(data.validation), len(data.test)] == [2, 1, 1]
    assert data.test.texts[0] == "d"


def test_a_folder_of_tables(tmp_path):
    for name in ("train", "dev", "test"):
        write(
            tmp_path / f"{name}.tsv", [f"{name} {i}\t{i % 2}" for i in (0, 1)]
        )
    data = load_texts(tmp_path)
    assert data.validation.texts.tolist() == ["dev 0", "dev 1"]
    assert data.train.ids == ("train.tsv:1", "train.tsv:2")


def test_class_folders(tmp_path):
    for split in ("train", "test"):
        for name in ("neg", "pos"):
            for i in range(6):
                write(
                    tmp_path / split / name / f"{i}.txt", [f"{name} {i}{split}"]
                )
    data = load_texts(tmp_path)
    assert data.class_names == ("neg", "pos")
    assert len(data.test) == 12
    assert len(data.train) + len(data.validation) == 12 and len(data.validation)
    assert data.test.ids[0] == "test/neg/0.txt"
    flat = load_texts(tmp_path / "train", split=ALL)
    assert len(flat.train) == 12


def test_an_unreadable_class_folder(tmp_path, monkeypatch):
    for name in ("bad", "fine", "good"):
        for i in range(2):
            path = tmp_path / "texts" / name / f"{i}.txt"
            write(path, [f"{name} {i}"])
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/fine"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="fine/: permission denied"):
        load_texts(tmp_path / "texts")
    data = load_texts(tmp_path / "texts", on_error="skip", split=ALL)
    assert data.class_names == ("bad", "good")
    assert data.report.skipped == (("fine/", "permission denied"),)


def test_arrays_and_dicts():
    texts, labels = zip(*ROWS, strict=True)
    data = load_texts((list(texts), np.array(labels)), split=ALL)
    assert pairs(data.train) == ROWS
    numbers = load_texts((texts, [10, 9, 10, 9]), split=ALL)
    assert numbers.class_names == ("9", "10")
    parts = {"train": (texts, labels), "val": (["c", "d"], ["neg", "pos"])}
    both = load_texts(parts, split=(0.5, 0.5, 0.0))
    assert (
        len(both.train) == 4 and both.validation.ids[0] == "validation/000000"
    )


def test_given_classes():
    data = load_texts(
        (["a", "b"], ["pos", "neg"]), class_names=["pos", "neg"], split=ALL
    )
    assert data.train.labels.tolist() == [0, 1]


def test_encoding(tmp_path):
    file = write(tmp_path / "x.tsv", ["café\t1", "thé\t0"], "latin-1")
    with pytest.raises(ValueError, match="`encoding` must be the encoding of"):
        load_texts(file)
    data = load_texts(file, encoding="latin-1", split=ALL)
    assert data.train.texts[0] == "café"


def test_rows_end_where_the_table_says(tmp_path):
    """Unicode has other line ends, which are part of a text."""
    odd = "a\x0bb\x0cc\x85d\u2028e"
    file = write(tmp_path / "x.csv", ["text,label", f"{odd},1", "f,0"])
    data = load_texts(file, split=ALL)
    assert data.train.texts[0] == odd and len(data.train) == 2


def test_a_first_row_like_a_header(tmp_path):
    lines = ["unique\tthird", "a\tpos", "b\tneg", "c\tpos", "d\tneg"]
    file = write(tmp_path / "x.tsv", lines)
    with pytest.raises(ValueError, match="header=False"):
        load_texts(file)
    assert len(load_texts(file, header=False, split=ALL).train) == 5
    assert (
        len(
            load_texts(
                file, header=True, text_column=0, label_column=1, split=ALL
            ).train
        )
        == 4
    )
    review = write(tmp_path / "y.tsv", ["review\t0", "a\t0", "b\t1"])
    assert len(load_texts(review, split=ALL).train) == 3


def test_what_is_ignored_is_told(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.tsv", ["a\t0", f"b {name}\t1"])
    write(tmp_path / "notes.md", ["x"])
    with pytest.warns(UserWarning, match="identical texts"):
        data = load_texts(tmp_path, split=ALL)
    assert data.report.ignored == ("notes.md",)
    write(tmp_path / "train.csv", ["c,0"])
    with pytest.raises(ValueError, match="one file for each split"):
        load_texts(tmp_path)


# --- Splits and reports ---


def test_copies_stay_together():
    texts = [f"text {i % 30}" for i in range(60)]
    labels = [i % 2 for i in range(30)] * 2
    data = load_texts((texts, labels), split=(0.6, 0.2, 0.2))
    sets = [
        set(part.texts) for part in (data.train, data.validation, data.test)
    ]
    assert not sets[0] & sets[1] and not sets[0] & sets[2]
    assert len(data.report.copies) == 30
    again = load_texts((texts, labels), split=(0.6, 0.2, 0.2))
    assert again.test.ids == data.test.ids


def test_leaks_and_conflicts_are_told():
    parts = {
        "train": (["same", "b", "c", "c"], [0, 1, 0, 1]),
        "test": (["same", "x"], [0, 1]),
    }
    with pytest.warns(UserWarning, match="identical texts") as told:
        data = load_texts(parts, split=ALL)
    assert len(told) == 2
    assert data.report.leaks == (("test/000000", "train/000000"),)
    assert data.report.conflicts == (("train/000002", "train/000003"),)
    assert "identical texts in different splits" in str(data.report)


def test_empty_texts(tmp_path):
    source = (["good", " ", "bad"], [1, 1, 0])
    for nothing in (None, float("nan")):
        with pytest.raises(ValueError, match="all/000001: it has no label"):
            load_texts((["a", "b", "c"], np.array(["x", nothing, "y"], object)))
    with pytest.raises(ValueError, match="all/000001: the text is empty"):
        load_texts(source)
    data = load_texts(source, on_error="skip", split=ALL)
    assert len(data.train) == 2
    assert data.report.skipped == (("all/000001", "the text is empty"),)


# --- Splits as data sets ---


def test_subset_shots_and_weights():
    data = load_texts(
        ([f"t{i}" for i in range(9)], [0, 0, 0, 0, 0, 0, 1, 1, 1]), split=ALL
    )
    some = data.train.subset([8, 0])
    assert some.texts.tolist() == ["t8", "t0"] and some.labels.tolist() == [
        1,
        0,
    ]
    few = data.train.shots(2)
    assert np.bincount(few.labels).tolist() == [2, 2]
    assert data.class_weights() == {0: 0.75, 1: 1.5}
    both = some.joined(few)
    assert len(both) == 6 and both.texts[0] == "t8"


def test_batches():
    data = load_texts(([f"t{i}" for i in range(5)], [0, 1, 0, 1, 0]), split=ALL)
    batches = list(data.train.batches(2))
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    texts = [t.decode() for x, _ in batches for t in x.numpy()]
    assert texts == [f"t{i}" for i in range(5)]
    assert batches[0][1].numpy().tolist() == [[1, 0], [0, 1]]
    shuffled = data.train.batches(5, shuffle=True, label_mode="int")
    orders = [next(iter(shuffled))[0].numpy().tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]
    resumed = data.train.batches(5, shuffle=True, initial_epoch=1)
    assert next(iter(resumed))[0].numpy().tolist() == orders[1]


# --- Errors ---


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("no/such/file.csv", ValueError, "which does not exist"),
        (3, TypeError, "must be a path, a pair"),
        ((["a", 3], [0, 1]), TypeError, "not all of them `str`"),
        ((["a", "b"], [0]), ValueError, "as many labels as texts"),
        ((["a", "b"], [0.5, 1.5]), ValueError, "dtype float64"),
        ((["a", "b"], [0, 0]), ValueError, "at least two classes"),
        ({"training data": (["a"], [0])}, ValueError, "must have keys"),
        (
            {"val": (["a"], [0]), "dev": (["b"], [1])},
            ValueError,
            "each once",
        ),
    ],
    ids=str,
)
def test_wrong_sources(source, error, message):
    with pytest.raises(error, match=message):
        load_texts(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": ["x", "y"]}, "outside the classes"),
        ({"split": (1, 1, 1)}, "sum to 1"),
        ({"on_error": "ignore"}, '"raise" or "skip"'),
        ({"seed": -1}, "at least 0"),
    ],
    ids=str,
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        load_texts((["a", "b"], [0, 1]), **options)


def test_wrong_files(tmp_path):
    with pytest.raises(ValueError, match="holds neither"):
        load_texts(tmp_path)
    for lines, options, message in (
        ([""], {}, "an empty table"),
        (["good\t1", "bad"], {}, "x.tsv:2: it has 1 columns"),
        (["good\t1", "bad\t0\t?"], {}, "x.tsv:2: it has 3 columns"),
        (["a,1", "b, c,0"], {"suffix": ".csv"}, "must be in quotation marks"),
        (
            ["phrase\tpolarity", "a\tpos", "b\tneg", "c\tpos", "d\tneg"],
            {},
            "begins with phrase, polarity",
        ),
        (["text\tlabel\tsplit", "a\t1\tthird"], {}, "line 2: 'third'"),
        (["text\tkind", "a\t1"], {}, "begins with text, kind"),
        (["text\tkind", "a\t1"], {"header": True}, "`label_column` must be"),
        (["a\t1"], {"text_column": 1}, "must be two columns"),
        (["a\t1"], {"encoding": "latin-99"}, "known to Python"),
    ):
        file = write(tmp_path / f"x{options.pop('suffix', '.tsv')}", lines)
        with pytest.raises(ValueError, match=message):
            load_texts(file, **options)
    other = write(tmp_path / "x.xlsx", ["{}"])
    with pytest.raises(ValueError, match="a file of another type"):
        load_texts(other)


@pytest.mark.pretrained
def test_sst2(assets):
    folder = assets / "text" / "sst2"
    with pytest.warns(UserWarning, match="2 groups of identical texts are in"):
        data = load_texts(folder)
    sizes = [len(data.train), len(data.validation), len(data.test)]
    assert sizes == [6920, 872, 1821]
    assert data.class_names == ("0", "1")


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("kind", ["int64", "uint8", "float32", "object", "U1"])
def test_labels_of_every_kind_are_the_same_classes(shape, kind):
    texts = [f"text number {number}" for number in range(24)]
    labels = np.arange(24) % 3
    data = load_texts((texts, labels.astype(kind).reshape(shape)))
    expected = load_texts((texts, labels))
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(data.train.labels, expected.train.labels)


def test_fractions_are_no_classes():
    texts = [f"text number {number}" for number in range(4)]
    for labels in (np.arange(4) / 3, np.array([0, 1, np.inf, 0])):
        with pytest.raises(ValueError, match="integers or names"):
            load_texts((texts, labels))


def test_floats_with_gaps_are_integers_without_a_label():
    texts = [f"text number {number}" for number in range(12)]
    labels = np.where(np.arange(12) == 5, np.nan, np.arange(12) % 2)
    with pytest.raises(ValueError, match="it has no label"):
        load_texts((texts, labels))
    data = load_texts((texts, labels), on_error="skip")
    assert data.class_names == ("0", "1")


def test_half_a_character_is_a_reason():
    texts = [f"text number {number}" for number in range(12)]
    texts[3] = "cut \ud83d"
    pair = (texts, [0, 1] * 6)
    with pytest.raises(ValueError, match="half a character"):
        load_texts(pair)
    data = load_texts(pair, on_error="skip")
    assert [reason for _, reason in data.report.skipped] == [
        "it holds half a character (surrogate)"
    ]

"""Tables of any format: quotation marks, columns, headers, missing cells."""

import bz2
import gzip
import json
import warnings

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from keras_transfer import load_images, load_texts

ALL = (1.0, 0.0, 0.0)


def raises(message):
    return pytest.raises(ValueError, match=message)


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def texts_of(source, **options):
    data = load_texts(source, split=ALL, **options)
    names = [data.class_names[label] for label in data.train.labels]
    return list(zip(data.train.texts.tolist(), names, strict=True))


class Frame:
    """A data frame of a package that has one protocol alone."""

    def __init__(self, table, protocol):
        setattr(self, protocol, getattr(table, protocol))


# --- Quotation marks ---


def rows(count, changes):
    lines = [f"{'ab'[i % 2]},text {i}" for i in range(count)]
    for place, line in changes.items():
        lines[place] = line
    return "label,text\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({4: 'a,"text 4'}, 6),
        ({18: 'a,"text 18'}, 20),
        ({4: 'a,"text 4', 9: 'b,"text 9"'}, 6),
        ({4: 'a,"text" 4'}, 6),
        ({2: 'a,"two\nlines"', 7: 'b,"text 7'}, 10),
        ({4: 'a,"text 4', 9: 'b,text 9"'}, 6),
    ],
    ids=["open", "last", "another follows", "text after", "after a", "closed"],
)
def test_a_stray_quotation_mark_is_named_by_its_line(tmp_path, changes, line):
    file = write(tmp_path / "x.csv", rows(20, changes))
    with raises(rf"line {line}\b"):
        load_texts(file)
    with raises(rf"line {line}\b"):  # the same door for tables of images
        load_images(file, path_column="text")


def test_quoted_cells_are_read(tmp_path):
    file = write(
        tmp_path / "x.csv", 'text,label\n"a, ""b""\nc",1\nplain "d" e,0\n'
    )
    assert texts_of(file) == [('a, "b"\nc', "1"), ('plain "d" e', "0")]
    data = load_texts(file, split=ALL)
    assert data.train.ids == ("x.csv:2", "x.csv:4")


def test_quotation_marks_in_tabs(tmp_path):
    """pandas and R quote cells there; most files have them in texts."""
    pandas = 'text\tlabel\n"he said ""a"""\t1\n"b\tc"\t0\nd\t1\n'
    assert texts_of(write(tmp_path / "p.tsv", pandas)) == [
        ('he said "a"', "1"),
        ("b\tc", "0"),
        ("d", "1"),
    ]
    r = '"text"\t"label"\n"a"\t1\n"b"\t0\n'
    assert texts_of(write(tmp_path / "r.tsv", r)) == [("a", "1"), ("b", "0")]
    plain = 'text\tlabel\n"whole"\t1\n"open\t0\nend"\t0\n'
    assert texts_of(write(tmp_path / "t.tsv", plain)) == [
        ('"whole"', "1"),
        ('"open', "0"),
        ('end"', "0"),
    ]


@pytest.mark.parametrize(("name", "quote"), [("x.csv", '"'), ("x.tsv", "")])
def test_long_cells(tmp_path, name, quote):
    import csv

    limit = csv.field_size_limit()
    mark = "," if quote else "\t"
    long = "word " * 30000
    file = write(
        tmp_path / name,
        f"text{mark}label\n{quote}{long}{quote}{mark}a\nb{mark}b\n",
    )
    assert texts_of(file) == [(long, "a"), ("b", "b")]
    assert csv.field_size_limit() == limit


# --- Cells ---


def test_rows_with_other_cells_are_named_or_skipped(tmp_path):
    file = write(tmp_path / "x.csv", "text,label\na,0\nb, c,1\nd,1\ne\nf,0,\n")
    with raises("x.csv:3: it has 3 columns, and the first row 2. A cell"):
        load_texts(file)
    data = load_texts(file, on_error="skip", split=ALL)
    assert data.train.texts.tolist() == ["a", "d", "f"]
    assert [name for name, _ in data.report.skipped] == ["x.csv:3", "x.csv:5"]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_delimiters(tmp_path, mark):
    lines = ["text;label", "a, b;1", "c;0", "d, e, f;1"]
    text = "\n".join(lines).replace(";", mark)
    expected = [("a, b", "1"), ("c", "0"), ("d, e, f", "1")]
    assert texts_of(write(tmp_path / "x.csv", text)) == expected
    assert texts_of(write(tmp_path / "x.tsv", text)) == expected
    excel = f"sep={mark}\r\n" + text.replace("\n", "\r\n")
    assert texts_of(write(tmp_path / "e.csv", excel)) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl", "class folders"])
def test_byte_order_marks_are_no_part_of_a_text(tmp_path, name, encoding):
    if name == "class folders":
        for text, label in (("é", "1"), ("b", "0")):
            (tmp_path / label).mkdir()
            write(tmp_path / label / "x.txt", text.encode(encoding))
        assert sorted(texts_of(tmp_path)) == [("b", "0"), ("é", "1")]
        return
    mark = "\t" if name == "x.tsv" else ","
    text = f"text{mark}label\né{mark}1\nb{mark}0\n"
    if name == "x.jsonl":
        text = '{"text": "é", "label": 1}\n{"text": "b", "label": 0}'
    file = write(tmp_path / name, text.encode(encoding))
    assert texts_of(file) == [("é", "1"), ("b", "0")]


# --- Formats ---


FILES = ["x.csv.gz", "x.tsv.bz2", "x.jsonl", "x.json", "x.parquet"]


def write_as(path, columns):
    """Writes columns in the format that the name of the file says."""
    names, table = list(columns), list(zip(*columns.values(), strict=True))
    records = [dict(zip(names, row, strict=True)) for row in table]
    if path.name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif path.name.endswith("json"):
        write(path, json.dumps(records))
    elif path.name.endswith("jsonl"):
        write(path, "\n".join(map(json.dumps, records)))
    else:
        mark = "\t" if ".tsv" in path.name else ","
        lines = [mark.join(map(str, row)) for row in [names, *table]]
        compress = gzip if path.name.endswith("gz") else bz2
        write(path, compress.compress("\n".join(lines).encode()))
    return path


@pytest.mark.parametrize("name", FILES)
def test_formats(tmp_path, make_folder, name):
    texts = {"n": [1, 2, 3], "text": ["a", "b", "c"], "label": [10, 9, 10]}
    file = write_as(tmp_path / name, texts)
    assert texts_of(file) == [("a", "10"), ("b", "9"), ("c", "10")]
    assert load_texts(file, split=ALL).class_names == ("9", "10")
    assert len(load_texts([file, file], split=ALL).train) == 6
    parts = load_texts({"train": file, "test": ((["d"]), ["9"])}, split=ALL)
    assert len(parts.train) == 3 and parts.test.texts.tolist() == ["d"]
    make_folder({"a": 2, "b": 2})
    paths = [f"images/{c}/00{i}.png" for c in "ab" for i in (0, 1)]
    images = {"image_path": paths, "kind": list("aabb")}
    file = write_as(tmp_path / f"i{name}", images)
    data = load_images(file, label_column="kind", split=ALL)
    assert data.class_names == ("a", "b") and data.train.ids == tuple(paths)


@pytest.mark.parametrize("protocol", ["__arrow_c_stream__", "__dataframe__"])
def test_data_frames(make_folder, protocol):
    root = make_folder({"a": 3, "b": 3})
    table = pyarrow.table(
        {"text": ["x", None, "z", "w"], "label": [1.0, 0.0, None, 0.0]}
    )
    frame = Frame(table, protocol)
    with raises(r"table:1: the text is empty\n  table:2: it has no label"):
        load_texts(frame)
    assert texts_of(frame, on_error="skip") == [("x", "1"), ("w", "0")]
    paths = [str(root / c / f"00{i}.png") for c in "ab" for i in range(3)]
    images = pyarrow.table({"file": paths, "kind": list("aaabbb")})
    data = load_images(Frame(images, protocol), label_column="kind", split=ALL)
    assert data.train.ids == tuple(paths)
    both = load_images({"train": images.rename_columns(["file", "label"])})
    assert both.num_classes == 2


def test_a_data_frame_of_mixed_columns():
    """pandas has such columns; Arrow has one type a column."""

    class Mixed:
        columns = ("text", "label")

        def __getitem__(self, name):
            gap = float("nan")
            return {"text": list("abc"), "label": ["x", 1, gap]}[name]

        def __arrow_c_stream__(self, requested_schema=None):
            raise TypeError("expected bytes, got int")

    frame = Mixed()
    with raises("table:2: it has no label"):
        load_texts(frame)
    assert texts_of(frame, on_error="skip") == [("a", "x"), ("b", "1")]


def test_lists_of_paths(make_folder, monkeypatch):
    root = make_folder({"a": 3, "b": 3})
    paths = sorted(root.glob("*/*.png"))
    data = load_images((paths, np.array([0, 0, 0, 1, 1, 1])), split=ALL)
    assert data.train.ids == tuple(map(str, paths))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    labels = ["a", "a", None, "b", "b", "b"]
    with raises("a/002.png: it has no label"):
        load_images((paths, labels))
    data = load_images((paths, labels), on_error="skip", split=ALL)
    assert len(data.train) == 5 and len(data.report.skipped) == 1
    monkeypatch.chdir(root)
    parts = {
        name: ([f"{c}/00{i}.png" for c in "ab"], ["a", "b"])
        for i, name in enumerate(("train", "validation", "test"))
    }
    assert load_images(parts).test.ids == ("a/002.png", "b/002.png")


def test_paths_of_windows_and_without_endings(make_folder, tmp_path):
    make_folder({"a": 3, "b": 3})
    lines = [rf"images\{c}\00{i}.png,{c}" for c in "ab" for i in range(3)]
    file = write(tmp_path / "x.csv", "path,label\n" + "\n".join(lines))
    assert len(load_images(file, split=ALL).train) == 6
    text = file.read_text().replace("\\", "/").replace(".png", "")
    with raises('images/a/000: no such file, but "000.png" is there'):
        load_images(write(file, text))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"text": "a", "label": 1}\n{"text":', "line 2 cannot be"),
        ("x.jsonl", '{"text": "a"}\n3', "line 2 is a int"),
        ("x.json", "[]", "an empty table"),
        ("x.parquet", "nonsense", "a Parquet file that can be read"),
        ("x.csv.gz", "nonsense", "a file that can be read"),
        ("x.jsonl", '{"text": 3, "label": 1}', "line 1 holds 3"),
    ],
)
def test_files_that_are_not_what_their_name_says(
    tmp_path, name, content, message
):
    with raises(message):
        load_texts(write(tmp_path / name, content))


# --- Columns and headers ---


def spam(first):
    kinds = ["spam" if i % 5 == 0 else "ham" for i in range(30)]
    lines = [f"{kind},message {i} call" for i, kind in enumerate(kinds)]
    return "\n".join([*first, *lines])


@pytest.mark.parametrize(
    ("text", "message", "columns"),
    [
        (spam([]), "column 1 of .* 30 different .* Column 0", (1, 0)),
        (spam(["v1,v2"]), "31 different values in 31", ("v2", "v1")),
        (
            "\n".join(f'"{i % 4}","title {i}","b {i}"' for i in range(30)),
            "30 different values",
            (1, 0),
        ),
        (
            "text,label,kind\n"
            + "\n".join(f"a {i},{i / 7:.4f},{i % 2}" for i in range(30)),
            'column "label" .* To predict numbers',
            ("text", "kind"),
        ),
    ],
    ids=["no header", "unknown header", "label first", "numbers"],
)
def test_columns_that_hold_no_classes(tmp_path, text, message, columns):
    file = write(tmp_path / "x.csv", text)
    with raises(message):
        load_texts(file)
    data = load_texts(
        file, text_column=columns[0], label_column=columns[1], split=ALL
    )
    assert data.num_classes in (2, 4)


def test_as_many_classes_as_images(make_folder, tmp_path, arrays):
    make_folder({"a": 3, "b": 3})
    lines = [f"images/{c}/00{i}.png,{c}{i}" for c in "ab" for i in range(3)]
    file = write(tmp_path / "x.csv", "path,label\n" + "\n".join(lines))
    with raises("Labels must be classes.*6 different values in 6 rows"):
        load_images(file)
    names = sorted(line.split(",")[1] for line in lines)
    assert load_images(file, class_names=names, split=ALL).num_classes == 6
    with raises("40 different values in 40 rows"):
        load_images((arrays[0], np.arange(40)))
    with raises("40 different values in 40 rows"):
        load_images((arrays[0], [f"row {i}" for i in range(40)]))


@pytest.mark.parametrize(
    "first", ["phrase,polarity", "review_text,rating", "body,kind"]
)
def test_a_header_is_no_example(tmp_path, first):
    for names in ("pos neg pos neg odd".split(), "1 0 1 0 7".split()):
        lines = [f"some words {i},{name}" for i, name in enumerate(names)]
        file = write(tmp_path / "x.csv", "\n".join([first, *lines]))
        with raises(f"begins with {first.replace(',', ', ')}"):
            load_texts(file)
        assert len(texts_of(file, header=True, text_column=0, label_column=1))


def test_columns_of_images_by_name_and_number(make_folder, tmp_path):
    make_folder({"a": 3, "b": 3})
    lines = [f"{c},images/{c}/00{i}.png" for c in "ab" for i in range(3)]
    file = write(tmp_path / "x.csv", "kind,picture\n" + "\n".join(lines))
    with raises("columns .'kind', 'picture'., without \"path\""):
        load_images(file)
    for columns in (("picture", "kind"), (1, 0)):
        data = load_images(
            file, path_column=columns[0], label_column=columns[1], header=True
        )
        assert data.class_names == ("a", "b")
    bare = write(tmp_path / "y.csv", "\n".join(lines))
    data = load_images(bare, path_column=1, label_column=0, split=ALL)
    assert len(data.train) == 6
    swapped = [",".join(reversed(line.split(","))) for line in lines]
    bare = write(tmp_path / "z.csv", "\n".join(swapped))
    assert len(load_images(bare, split=ALL).train) == 6
    with raises("`label_column` must be a column .* Did you mean 'kind'"):
        load_images(file, path_column="picture", label_column="kinds")
    twice = write(tmp_path / "t.csv", "path,label,label\na.png,1,2\n")
    with raises("2 columns 'label'. Pass label_column=NUMBER"):
        load_images(twice)


# --- Missing labels and texts ---


class Unknown:
    """Compares as pandas.NA does."""

    def __eq__(self, other):
        return self

    __ne__ = __eq__
    __hash__ = object.__hash__

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


GAPS = [None, float("nan"), Unknown(), "", " ", np.datetime64("NaT"), "NaN"]


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: repr(gap)[:8])
@pytest.mark.parametrize("as_list", [True, False])
def test_missing_labels_are_named_or_left_out(arrays, gap, as_list):
    labels = ["cat", "dog"] * 20
    labels[3] = gap
    if not as_list:
        labels = np.array(labels, dtype=object)
    texts = [f"text {i}" for i in range(40)]
    for load, inputs in ((load_images, arrays[0]), (load_texts, texts)):
        with raises("all/000003: it has no label"):
            load((inputs, labels))
        data = load((inputs, labels), on_error="skip", split=ALL)
        assert data.class_names == ("cat", "dog") and len(data.train) == 39
        assert data.report.skipped == (("all/000003", "it has no label"),)


def test_missing_numbers_are_named_or_left_out(arrays):
    images, labels = arrays
    floats = labels.astype(float)
    floats[5] = np.nan
    rows = np.eye(4)[labels]
    rows[5, 2] = np.nan
    masked = np.ma.array(labels, mask=np.arange(40) == 5)
    objects = labels.astype(object)
    objects[5] = None
    for gaps in (floats, rows, masked, objects, objects.tolist()):
        with raises("all/000005: it has no label"):
            load_images((images, gaps))
        data = load_images((images, gaps), on_error="skip", split=ALL)
        assert data.class_names == ("0", "1", "2", "3")
        np.testing.assert_array_equal(data.train.labels, np.delete(labels, 5))


def test_missing_cells_of_tables(make_folder, tmp_path):
    make_folder({"a": 3, "b": 3})
    lines = [f"images/{c}/00{i}.png,{c}" for c in "ab" for i in range(3)]
    lines[1] = "images/a/001.png,NA"
    lines[4] = ",b"
    file = write(tmp_path / "x.csv", "path,label\n" + "\n".join(lines))
    with raises("row 3: it has no label\n  row 6: it has no path"):
        load_images(file)
    data = load_images(file, on_error="skip", split=ALL)
    assert len(data.train) == 4 and len(data.report.skipped) == 2
    # A class of that name is declared.
    lines[4] = "images/b/001.png,NA"
    file = write(tmp_path / "x.csv", "path,label\n" + "\n".join(lines))
    data = load_images(file, class_names=["a", "b", "NA"], split=ALL)
    assert len(data.train) == 6 and data.class_names[2] == "NA"


@pytest.mark.parametrize("gap", GAPS[:5], ids=lambda gap: repr(gap)[:8])
def test_missing_texts(gap):
    source = (["a", gap, "c", "d"], [0, 1, 0, 1])
    with raises("all/000001: the text is empty"):
        load_texts(source)
    data = load_texts(source, on_error="skip", split=ALL)
    assert data.train.texts.tolist() == ["a", "c", "d"]


def test_the_advice_for_missing_values_can_be_followed(arrays):
    from keras_transfer.data.adapters.arrays import as_arrays
    from keras_transfer.data.labels import refuse_gaps

    with raises('2 rows: 0, 1. Remove .* `load_images` .*on_error="skip"'):
        as_arrays("train", (arrays[0][:4], [np.nan, np.nan, 1, 0]))
    for labels in ([np.nan, 0.5], [[np.nan, 1], [2.5, 1]]):
        with raises("1 rows: 0. Remove these rows.$"):
            as_arrays("train", (arrays[0][:2], labels))
    with raises("1 rows: 0. Remove these rows.$"):
        refuse_gaps("groups", [None, "a"], "groups")
    for shape in ((0,), (0, 3)):
        with raises("must hold at least one example"):
            as_arrays("train", (arrays[0][:0], np.zeros(shape)))


def test_rows_without_labels_are_named_where_nothing_can_be_skipped(arrays):
    from keras_transfer.data.adapters.opening import open_data
    from keras_transfer.features.arrays import check_classes

    labels = arrays[1].astype(float)
    labels[[2, 7]] = np.nan
    options = {"batch_size": 8, "seed": 0, "augment": None, "cache": None}
    with raises("`data.*train.*labels in every row. .* 2 rows: 2, 7"):
        open_data((arrays[0], labels), **options)
    with raises("inputs in every row. .* 1 rows: 1"):
        open_data((np.array(["a", None], object), [0, 1]), **options)
    with raises("`labels` must have labels in every row. .* 2 rows: 2, 7"):
        check_classes(labels, 40)


# --- Several labels ---


def labelled(make_folder, tmp_path, labels, head="path,label"):
    if not (tmp_path / "images").exists():
        make_folder({"x": 6})
    lines = [f"images/x/00{i}.png,{labels[i]}" for i in range(6)]
    return write(tmp_path / "x.csv", head + "\n" + "\n".join(lines))


@pytest.mark.parametrize("mark", [";", "|", ", "])
def test_usual_separators_are_detected(make_folder, tmp_path, mark):
    cells = ["cat;dog", "dog", "bird;dog", "", "cat", "dog ; cat"]
    cells = [f'"{cell.replace(";", mark)}"' for cell in cells]
    file = labelled(make_folder, tmp_path, cells)
    data = load_images(file, multi_label=True, split=ALL)
    assert data.class_names == ("bird", "cat", "dog")
    assert data.train.labels.sum(axis=1).tolist() == [2, 1, 2, 0, 1, 2]
    assert any(repr(mark.strip()) in note for note in data.report.notes)


def test_missing_labels_and_none_of_the_classes(make_folder, tmp_path, arrays):
    cells = ["cat;dog", "NA", "cat", "", "dog", "cat"]
    file = labelled(make_folder, tmp_path, cells)
    paths = [str(tmp_path / f"images/x/00{i}.png") for i in range(6)]
    frames = [
        pyarrow.table({"path": paths, "label": [*cells[:1], gap, *cells[2:]]})
        for gap in (None, "NaN")
    ]
    lists = [["cat", "dog"], None, ["cat"], [], ["dog"], ["cat"]]
    names = [*cells[:1], float("nan"), *cells[2:]]
    pairs = [(arrays[0][:6], labels) for labels in (lists, names)]
    for source in (file, *frames, *pairs):
        with raises("it has no label"):
            load_images(source, multi_label=True)
        data = load_images(source, multi_label=True, on_error="skip", split=ALL)
        assert data.train.labels.sum(axis=1).tolist() == [2, 1, 0, 1, 1]
    known = ["NA", "cat", "dog"]
    data = load_images(file, multi_label=True, class_names=known, split=ALL)
    assert data.train.labels.sum(axis=1).tolist() == [2, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("mark", ["/", "+", " "])
def test_unusual_separators_are_asked_for(make_folder, tmp_path, mark):
    cells = [f"haze{mark}sun", "haze", "sun", "rain", "rain", "haze"]
    file = labelled(make_folder, tmp_path, cells)
    with raises("`separator` must be given") as info:
        load_images(file, multi_label=True)
    assert f"separator={mark!r}" in str(info.value)  # that advice works:
    data = load_images(file, multi_label=True, separator=mark, split=ALL)
    assert data.class_names == ("haze", "rain", "sun")
    data = load_images(file, multi_label=True, separator=";", split=ALL)
    assert f"haze{mark}sun" in data.class_names
    cells = [f"New{mark}York", "Rome", "Bonn", "Rome", "Rome", "Bonn"]
    file = labelled(make_folder, tmp_path, cells)
    data = load_images(file, multi_label=True, split=ALL)
    assert len(data.class_names) == 3  # nothing recurs: whole names


def test_lists_of_labels(make_folder, tmp_path, arrays):
    cells = ["\"['cat', 'dog']\"", "['dog']", "[]", "['cat']"] + ["['dog']"] * 2
    file = labelled(make_folder, tmp_path, cells)
    data = load_images(file, multi_label=True, split=ALL)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.sum(axis=1).tolist() == [2, 1, 0, 1, 1, 1]
    names = [["cat", "dog"], ["dog"], [], ["bird"]] * 10
    data = load_images((arrays[0], names), multi_label=True, split=ALL)
    assert data.train.labels.sum(axis=1).tolist() == [2, 1, 0, 1] * 10
    data = load_images(
        (arrays[0], ["cat|dog", "dog", "bird", "cat"] * 10),
        multi_label=True,
        split=ALL,
    )
    assert data.class_names == ("bird", "cat", "dog")


def test_columns_of_flags(make_folder, tmp_path):
    head = "path,cat,dog,sex"
    cells = ["1,0,m", "0,1,f", "1,1,f", "1,0,m", "0,1.0,m", "False,True,f"]
    file = labelled(make_folder, tmp_path, cells, head)
    options = {"label_columns": ["dog", "cat"], "split": ALL}
    with raises(r"row 4: 2 of its label columns are 1 \(several need multi"):
        load_images(file, **options)
    data = load_images(file, multi_label=True, **options)
    assert data.class_names == ("dog", "cat")
    expected = [[0, 1], [1, 0], [1, 1], [0, 1], [1, 0], [1, 0]]
    assert data.train.labels.tolist() == expected
    cells[2] = ",0,f"
    file = labelled(make_folder, tmp_path, cells, head)
    with raises("row 4: it has no label"):
        load_images(file, **options)
    data = load_images(file, on_error="skip", **options)
    assert data.train.labels.tolist() == [1, 0, 1, 0, 0]
    cells[2] = "-1,0,f"
    file = labelled(make_folder, tmp_path, cells, head)
    with raises("row 4: '-1' is not 0 or 1"):
        load_images(file, **options)
    with raises("`label_columns` must be two or more"):
        load_images(file, label_columns=["cat"])
    with raises("`label_columns` must be None if"):
        load_images(file, label_columns=["cat", "dog"], label_column="sex")


def test_label_columns_keep_their_order_in_several_tables(
    make_folder, tmp_path
):
    head = "path,cat,dog"
    cells = ["1,0", "0,1", "1,0", "1,0", "0,1", "0,1"]
    table = labelled(make_folder, tmp_path, cells, head)
    lines = table.read_text().splitlines()
    first = write(tmp_path / "a.csv", "\n".join(lines[:4]))
    second = write(tmp_path / "b.csv", "\n".join([head, *lines[4:]]))
    for source in ([first, second], {"train": first, "test": second}):
        data = load_images(source, label_columns=["dog", "cat"], split=ALL)
        assert data.class_names == ("dog", "cat")


def test_classes_of_a_small_split_need_not_recur(make_folder, tmp_path):
    names = ["cat", "dog", "cow", "hen", "pig"]
    make_folder({"x": 15})
    tables = {}
    for split, rows in (("train", range(10)), ("test", range(10, 15))):
        lines = [f"images/x/{i:03d}.png,{names[i % 5]}" for i in rows]
        text = "path,label\n" + "\n".join(lines)
        tables[split] = write(tmp_path / f"{split}.csv", text)
    lists = list(tables.values())
    for source in (tables, lists):
        assert load_images(source).num_classes == 5
        assert load_texts(source, text_column="path").num_classes == 5
    assert load_texts(tmp_path, text_column="path").num_classes == 5
    texts = [f"t{i}" for i in range(15)]
    pairs = {
        "train": (texts[:10], names * 2),
        "test": (texts[10:], names),
    }
    assert load_texts(pairs).num_classes == 5
    columns = {"path_column": "label", "label_column": "path"}
    with raises(
        "column \"path\" of 'train.csv' with 15 different values in 15"
    ):
        load_images(tables, **columns)
    columns = {"text_column": "label", "label_column": "path"}
    with raises(
        "column \"path\" of 'train.csv' with 15 different values in 15"
    ):
        load_texts(tables, **columns)


def test_the_advice_for_several_labels_can_be_followed(arrays):
    cells = ["cat|dog", "dog", "bird|dog"] * 2
    with raises("Keep one label of each text") as info:
        load_texts((list("uvwxyz"), cells))
    assert "multi_label" not in str(info.value)
    soft = np.full((40, 4), 0.1)
    soft[np.arange(40), arrays[1]] = 0.7
    with raises(r"labels.argmax\(axis=1\).*`fine_tune`") as info:
        load_images((arrays[0], soft))
    assert "multi_label" not in str(info.value)
    assert load_images((arrays[0], soft.argmax(axis=1))).num_classes == 4


def test_combinations_are_no_classes(make_folder, tmp_path, arrays):
    cells = ["cat|dog", "dog", "bird|dog"] * 2
    file = labelled(make_folder, tmp_path, cells)
    with raises(
        "'dog' recurs between '|'.* Pass multi_label=True".replace("|", r"\|")
    ):
        load_images(file)
    with raises("each combination would become a class"):
        load_images((arrays[0], ["a;b", "b", "b", "a;b"] * 10))
    with raises("each combination would become a class"):
        load_texts((list("uvwxyz"), cells))
    names = sorted(set(cells))
    assert load_images(file, class_names=names, split=ALL).num_classes == 3


def test_numbers_as_names_sort_as_numbers(make_folder, arrays):
    names = [str(i) for i in range(12)]
    root = make_folder({name: 2 for name in names})
    assert load_images(root, split=ALL).class_names == tuple(names)
    labels = [names[i % 12] for i in range(40)]
    assert load_images((arrays[0], labels)).class_names == tuple(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = [f"text {i}" for i in range(40)]
        assert load_texts((texts, labels)).class_names == tuple(names)
    odd = ["10", "9", "b"] * 4
    assert load_texts((texts[:12], odd)).class_names == ("10", "9", "b")

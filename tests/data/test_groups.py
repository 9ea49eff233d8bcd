"""Groups (patients, scenes) stay in one split, fold and probe fold."""

import hashlib

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from keras_transfer import fit_probe, load_images, load_texts
from keras_transfer.data.grouping import join_groups
from keras_transfer.experiments import folds as fold_module
from keras_transfer.features import Features, FeatureSplit
from keras_transfer.features.probe_folds import make_folds

PATIENTS = [f"patient {i // 4}" for i in range(40)]


def raises(message, error=ValueError):
    return pytest.raises(error, match=message)


def splits_of(data):
    """The splits in which each group is."""
    found = {}
    for name in ("train", "validation", "test"):
        for group in getattr(data, name).groups:
            found.setdefault(group, set()).add(name)
    return found


def assert_together(data, count=10):
    found = splits_of(data)
    assert len(found) == count
    assert all(len(names) == 1 for names in found.values())
    assert {name for names in found.values() for name in names} == {
        "train",
        "validation",
        "test",
    }


def test_groups_of_arrays_stay_in_one_split(arrays):
    options = {"split": (0.6, 0.2, 0.2)}
    for groups in (PATIENTS, np.array(PATIENTS), np.arange(40) // 4):
        assert_together(load_images(arrays, groups=groups, **options))
    texts = [f"text {i}" for i in range(40)]
    data = load_texts((texts, arrays[1]), groups=PATIENTS, **options)
    assert_together(data)
    assert load_images(arrays).train.groups is None


def test_groups_by_column_and_by_function(make_folder, tmp_path):
    root = make_folder({"a": 12, "b": 12})
    lines = ["path,label,patient"]
    for i in range(24):
        name = "ab"[i % 2]
        lines.append(f"images/{name}/{i // 2:03d}.png,{name},p{i // 4}")
    file = tmp_path / "x.csv"
    file.write_text("\n".join(lines))
    options = {"split": (0.6, 0.2, 0.2)}
    data = load_images(file, groups="patient", **options)
    assert_together(data, 6)
    assert data.train.ids[0].startswith("images/")
    by_id = load_images(root, groups=lambda id_: int(id_[2:5]) // 2, **options)
    assert_together(by_id, 6)
    texts = tmp_path / "t.csv"
    texts.write_text("\n".join(lines).replace("path", "text"))
    assert_together(load_texts(texts, groups="patient", **options), 6)
    with raises("`groups` must be a column of 'x.csv'.*Did you mean 'patient'"):
        load_images(file, groups="patients")
    with raises("a source without columns"):
        load_images(root, groups="patient")
    lines[3] = lines[3].removesuffix("p0")
    file.write_text("\n".join(lines))
    with raises("images/a/001.png: it has no group"):
        load_images(file, groups="patient")
    data = load_images(file, groups="patient", on_error="skip", **options)
    assert dict(data.report.skipped).popitem()[1] == "it has no group"


def test_copies_join_groups(arrays):
    images = arrays[0].copy()
    images[39] = images[0]  # a copy of patient 0 among those of patient 9
    labels = arrays[1].copy()
    labels[39] = labels[0]
    for seed in range(4):
        data = load_images(
            (images, labels), groups=PATIENTS, split=(0.5, 0.2, 0.3), seed=seed
        )
        found = splits_of(data)
        assert found["patient 0"] == found["patient 9"]
    groups = [[0, 1], [2, 3], [4], [5]]
    assert join_groups(groups, list("abbccd")) == [[0, 1, 2, 3, 4], [5]]
    assert join_groups(groups, None) == groups


def test_groups_in_several_splits_of_the_source_are_told(arrays):
    parts = {
        "train": (arrays[0][:30], arrays[1][:30]),
        "test": (arrays[0][30:], arrays[1][30:]),
    }
    with pytest.warns(UserWarning, match="1 groups .* first is 'patient 7'"):
        data = load_images(parts, groups=PATIENTS)
    assert any("patient 7" in note for note in data.report.notes)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (PATIENTS[:5], "5 groups for 40 examples"),
        ([None, *PATIENTS[1:]], "all/000000: it has no group"),
        ("patient", "a source without columns"),
    ],
)
def test_wrong_groups(arrays, groups, message):
    with raises(message):
        load_images(arrays, groups=groups)
    with raises("`groups` must be the name", TypeError):
        load_images(arrays, groups=3)


# --- Folds ---


def test_subsets_and_joined_splits_keep_their_groups(arrays):
    data = load_images(arrays, groups=PATIENTS, split=(0.6, 0.2, 0.2))
    some = data.train.subset([3, 0])
    assert some.groups == (data.train.groups[3], data.train.groups[0])
    both = some.joined(data.validation)
    assert both.groups == some.groups + data.validation.groups


def test_folds_of_cross_validation_are_those_of_scikit_learn(arrays):
    data = load_images(arrays, groups=PATIENTS, split=(0.6, 0.4, 0.0))
    pool = fold_module.pool_labelled(data)
    pair = fold_module.with_groups(pair_pool(arrays), PATIENTS, arrays)
    for read in (pool, pair):
        parts = fold_module.make_folds(read, 4, 0)
        names = [{PATIENTS[int(read.ids[i][-6:])] for i in p} for p in parts]
        assert sum(map(len, names)) == len(set.union(*names)) == 10
    labels = np.array([int(names[0]) for names in pool.classes])
    oracle = StratifiedGroupKFold(4, shuffle=True, random_state=0).split(
        labels, labels, [PATIENTS[int(id_[-6:])] for id_ in pool.ids]
    )
    for ours, (_, theirs) in zip(
        fold_module.make_folds(pool, 4, 0), oracle, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    train, validation = fold_module.split_off(pool, np.arange(40), 0.3, 0)
    keys = np.array(PATIENTS)[[int(id_[-6:]) for id_ in pool.ids]]
    assert not set(keys[train]) & set(keys[validation])
    assert pair.digest != pair_pool(arrays).digest
    with raises("groups in every row. .* 1 rows: 2"):
        gap = [*PATIENTS[:2], None, *PATIENTS[3:]]
        fold_module.with_groups(pair, gap, arrays)
    with raises("groups of their own"):
        fold_module.with_groups(pool, PATIENTS, data)
    assert fold_module.with_groups(pool, None, data) is pool
    with raises("at most 10, the number of different examples or groups"):
        fold_module.make_folds(pool, 11, 0)


def test_directories_of_earlier_folds_are_found_again(arrays):
    """The digest names the way of resizing only where it is not the first."""
    data = load_images(arrays, image_size=8)
    pool = fold_module.pool_labelled(data)
    digest = hashlib.sha256(repr((data.class_names, (8, 8))).encode())
    digest.update(repr(pool.ids).encode())
    order = [int(name[-6:]) for name in pool.ids]
    digest.update(arrays[1][order].astype(np.int32).tobytes())
    assert pool.digest == digest.hexdigest()
    cropped = load_images(arrays, image_size=8, resize="crop")
    assert fold_module.pool_labelled(cropped).digest != pool.digest


def pair_pool(arrays):
    return fold_module.make_pool(arrays, lambda label_format: label_format)


def test_folds_of_probes_are_those_of_scikit_learn(arrays):
    labels = arrays[1]
    for kind, splitter in (
        ("classification", StratifiedGroupKFold),
        ("regression", GroupKFold),
    ):
        ours = make_folds(labels, kind, 5, 0, PATIENTS)
        theirs = splitter(5, shuffle=True, random_state=0).split(
            labels, labels, PATIENTS
        )
        for (fit, held_out), (fit_2, held_out_2) in zip(
            ours, theirs, strict=True
        ):
            np.testing.assert_array_equal(fit, fit_2)
            np.testing.assert_array_equal(held_out, held_out_2)


def test_a_probe_by_groups_does_not_see_the_patient():
    """Features that name the patient alone predict nothing for a new one."""
    generator = np.random.default_rng(0)
    patients = np.arange(60) // 6
    labels = generator.integers(0, 2, 10)[patients]
    noise = generator.normal(size=(60, 10)) * 0.1
    values = (np.eye(10)[patients] + noise).astype("float32")
    features = Features(
        FeatureSplit(lambda i: values[i][:, None], 60, (10,), labels)
    )
    alone = fit_probe(features, strengths=[1e-3, 1.0])
    grouped = fit_probe(features, strengths=[1e-3, 1.0], groups=patients)
    worst = [max(row.loss for row in p.rows) for p in (alone, grouped)]
    assert worst[1] > 2 * worst[0]
    assert "cross-validation" in grouped.chosen_by
    ridge = fit_probe(features, kind="ridge", groups=patients)
    assert "5-fold" in ridge.chosen_by
    for kind in ("ridge", "logistic"):
        with raises("at least two groups"):
            fit_probe(features, kind=kind, groups=np.zeros(60))
    with raises("59 groups for 60 examples"):
        fit_probe(features, groups=patients[1:])

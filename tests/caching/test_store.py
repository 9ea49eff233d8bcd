"""Entries and shards: found by content, whole or not there, never too large."""

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from keras_transfer.caching.store import (
    FeatureStore,
    default_directory,
    store,
)
from keras_transfer.caching.store.entry import Entry, Tensor
from keras_transfer.caching.store.shards import locked, read_shard, shard_names

KEY = "0123456789abcdef"
ABOUT = {"network": "n", "name": "tiny", "dtype": "float32"}
TENSORS = (Tensor((3,), "float32"), Tensor((2, 2), "float16"))
FORK = multiprocessing.get_context("fork")


def make_digests(numbers):
    """The digest of number i; two that differ in one byte, zeros at the end."""
    found = np.zeros((len(numbers), 16), np.uint8)
    found[:, 0] = np.asarray(numbers) % 256
    found[:, 1] = np.asarray(numbers) // 256
    return found


def make_arrays(numbers):
    numbers = np.asarray(numbers, np.float32)
    return [
        np.repeat(numbers[:, None], 3, axis=1),
        np.tile(numbers[:, None, None], (1, 2, 2)).astype(np.float16),
    ]


def add(entry, numbers):
    with entry.writing():
        entry.append(make_digests(numbers), make_arrays(numbers))


def assert_holds(entry, numbers):
    places = entry.find(make_digests(numbers))
    assert (places >= 0).all()
    for found, expected in zip(
        entry.gather(places), make_arrays(numbers), strict=True
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def assert_misses(entry, numbers):
    assert (entry.find(make_digests(numbers)) == -1).all()


def open_entry(directory, key=KEY, **options):
    return FeatureStore(directory, **options).open(key, ABOUT, TENSORS)


def shards_of(entry):
    return [
        entry.folder / "shards" / name for name in shard_names(entry.folder)
    ]


def in_child(function, *arguments):
    """Runs a function in a fork; returns the exit code."""
    child = FORK.Process(target=function, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode


@pytest.fixture(params=["disk", "memory"])
def entry(request, tmp_path):
    directory = tmp_path / "store" if request.param == "disk" else None
    return open_entry(directory)


# --- Append, find, gather ---


def test_finds_what_was_appended_in_any_order(entry):
    add(entry, [1, 2, 3])
    add(entry, [300, 0])
    assert len(entry) == 5
    assert_holds(entry, [3, 0, 300, 1, 2, 2, 0])
    assert_misses(entry, [4, 256, 301])


def test_mixes_known_and_missing(entry):
    add(entry, [5, 7])
    found = entry.find(make_digests([7, 6, 5]))
    assert (found[:, 0] >= 0).tolist() == [True, False, True]


def test_an_empty_entry_finds_nothing(entry):
    assert len(entry) == 0
    assert entry.find(make_digests([1])).tolist() == [[-1, -1]]
    assert entry.find(make_digests([])).shape == (0, 2)
    assert [a.shape for a in entry.gather(np.empty((0, 2), int))] == [
        (0, 3),
        (0, 2, 2),
    ]


def test_an_example_that_is_there_twice_counts_once(entry):
    add(entry, [1, 2])
    add(entry, [2, 3])
    assert len(entry) == 3
    assert_holds(entry, [1, 2, 3])


def test_nothing_appended_writes_nothing(entry):
    add(entry, [])
    assert len(entry) == 0
    assert entry.folder is None or not shards_of(entry)


def test_missing_places_are_not_read_as_others(entry):
    add(entry, [1])
    with pytest.raises(ValueError, match="must be those of examples that the"):
        entry.gather(entry.find(make_digests([2])))


@pytest.mark.parametrize("wrong", ["dtype", "shape", "count", "rows"])
def test_only_takes_what_it_is_made_for(entry, wrong):
    digests, arrays = make_digests([1, 2]), make_arrays([1, 2])
    arrays = {
        "dtype": [arrays[0].astype("float64"), arrays[1]],
        "shape": [arrays[0][:, :2], arrays[1]],
        "count": arrays[:1],
        "rows": [arrays[0], arrays[1][:1]],
    }[wrong]
    with entry.writing(), pytest.raises(ValueError, match="Received: "):
        entry.append(digests, arrays)
    assert len(entry) == 0


def test_what_another_object_wrote_is_seen(tmp_path):
    first, second = open_entry(tmp_path / "s"), open_entry(tmp_path / "s")
    add(first, [1, 2])
    assert_misses(second, [1])
    second.refresh()
    assert_holds(second, [1, 2])
    assert_holds(open_entry(tmp_path / "s"), [2, 1])


def test_what_another_process_wrote_is_seen(tmp_path):
    entry = open_entry(tmp_path / "s")
    assert in_child(add, open_entry(tmp_path / "s"), [1, 2]) == 0
    with entry.writing():
        assert_holds(entry, [1, 2])


def test_rows_are_mapped_not_read(tmp_path):
    add(open_entry(tmp_path / "s"), range(10))
    entry = open_entry(tmp_path / "s")
    _, arrays = read_shard(shards_of(entry)[0])
    assert all(isinstance(array, np.memmap) for array in arrays)


# --- What was not finished ---


def test_a_half_written_shard_is_not_read_and_goes(tmp_path):
    entry = open_entry(tmp_path / "s")
    add(entry, [1])
    whole = shards_of(entry)[0]
    partial = whole.with_name(".partial-beef")
    shutil.copytree(whole, partial)
    again = open_entry(tmp_path / "s")
    assert len(again) == 1
    with again.writing():
        assert not partial.exists()
    assert_holds(again, [1])


def write_and_die(directory):
    """Dies where all files of a shard are written and it has no name yet."""
    replace = os.replace

    def die(source, target):
        if ".partial-" in str(source) and Path(source).is_dir():
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = die
    entry = open_entry(directory)
    with entry.writing():
        entry.append(make_digests([2]), make_arrays([2]))


def test_killed_before_a_shard_has_its_name(tmp_path):
    add(open_entry(tmp_path / "s"), [1])
    assert in_child(write_and_die, tmp_path / "s") == -signal.SIGKILL
    entry = open_entry(tmp_path / "s")
    assert list((entry.folder / "shards").glob(".partial-*"))
    assert_misses(entry, [2])
    add(entry, [2])  # The lock went with the process.
    assert_holds(entry, [1, 2])
    assert not list((entry.folder / "shards").glob(".partial-*"))


def test_killed_while_the_card_is_written(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".store.json.77.partial").write_text("{")
    entry = open_entry(tmp_path / "s")
    add(entry, [1])
    assert_holds(open_entry(tmp_path / "s"), [1])


def test_a_fork_does_not_keep_the_lock(tmp_path):
    entry = open_entry(tmp_path / "s")
    with entry.writing():
        child = FORK.Process(target=time.sleep, args=(60,))
        child.start()
    try:
        with locked(tmp_path / "s" / ".locks" / KEY, wait=False):
            pass
    finally:
        child.kill()
        child.join()


# --- Damage ---


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-7])


DAMAGES = {
    "flipped": flip,
    "truncated": truncate,
    "empty": lambda file: file.write_bytes(b""),
    "missing": Path.unlink,
}
FILES = ("tensor_0.npy", "tensor_1.npy", "digests.npy", "checksums.json")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
class TestDamage:
    @pytest.fixture
    def damaged(self, tmp_path, file, damage):
        entry = open_entry(tmp_path / "s")
        add(entry, [1, 2])
        add(entry, [3])
        shard = shards_of(entry)[0]
        DAMAGES[damage](shard / file)
        return shard

    def test_is_reported_and_computed_again(self, tmp_path, damaged):
        with pytest.warns(UserWarning, match=f"{damaged.name}.* is damaged"):
            entry = open_entry(tmp_path / "s")
        assert_misses(entry, [1, 2])
        assert_holds(entry, [3])
        assert not damaged.exists()
        add(entry, [1, 2])
        assert_holds(open_entry(tmp_path / "s"), [1, 2, 3])

    def test_verify_finds_it(self, tmp_path, damaged):
        found = FeatureStore(tmp_path / "s")
        assert len(found.ls()) == 1
        assert found.verify("ffff") == []
        assert found.verify() == [f"{KEY}/{damaged.name}"]
        assert not damaged.exists()
        assert found.verify() == []
        assert_holds(open_entry(tmp_path / "s"), [3])

    def test_clear_removes_it(self, tmp_path, damaged):
        assert FeatureStore(tmp_path / "s").clear() > 0
        assert not damaged.parents[1].exists()


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"digests.npy": "0"'])
def test_checksums_of_nothing_are_damage(tmp_path, text):
    entry = open_entry(tmp_path / "s")
    add(entry, [1])
    (shards_of(entry)[0] / "checksums.json").write_text(text)
    assert len(FeatureStore(tmp_path / "s").verify()) == 1


def test_an_unreadable_card_hides_nothing(tmp_path):
    entry = open_entry(tmp_path / "s")
    add(entry, [1, 2])
    (entry.folder / "entry.json").write_text("{")
    (info,) = FeatureStore(tmp_path / "s").ls()
    assert info.rows == 2 and info.num_bytes > 0 and not info.description
    assert_holds(open_entry(tmp_path / "s"), [1, 2])


def test_too_many_open_files_is_no_damage(tmp_path, monkeypatch):
    entry = open_entry(tmp_path / "s")
    add(entry, [1])

    def refuse(*args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        open_entry(tmp_path / "s")
    assert len(shards_of(entry)) == 1


def test_a_shard_that_another_process_removes_is_no_damage(
    tmp_path, monkeypatch
):
    entry = open_entry(tmp_path / "s")
    add(entry, [1])
    names = shard_names(entry.folder)
    FeatureStore(tmp_path / "s").clear()
    monkeypatch.setattr(
        "keras_transfer.caching.store.entry.shard_names", lambda folder: names
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_entry(tmp_path / "s")) == 0


# --- Places stay good ---


def test_places_stay_good_when_a_shard_goes(tmp_path):
    entry = open_entry(tmp_path / "s")
    add(entry, [1, 2])
    add(entry, [3, 4])
    places = entry.find(make_digests([4, 1, 3]))
    flip(shards_of(entry)[0] / "digests.npy")
    FeatureStore(tmp_path / "s").verify()
    entry.refresh()
    assert_misses(entry, [1, 2])
    add(entry, [9])
    np.testing.assert_array_equal(entry.gather(places)[0][:, 0], [4, 1, 3])
    assert_holds(entry, [3, 4, 9])
    assert len(entry) == 3


def test_places_stay_good_when_the_entry_goes(tmp_path):
    found = FeatureStore(tmp_path / "s")
    entry = found.open(KEY, ABOUT, TENSORS)
    add(entry, [1, 2])
    places = entry.find(make_digests([2, 1]))
    FeatureStore(tmp_path / "s").clear()
    assert found.open(KEY, ABOUT, TENSORS) is entry
    assert_misses(entry, [1, 2])
    add(entry, [7, 8])
    np.testing.assert_array_equal(entry.gather(places)[0][:, 0], [2, 1])
    assert_holds(entry, [7, 8])


# --- What is no store ---


def card(folder, text):
    folder.mkdir()
    (folder / "store.json").write_text(text)


def everything(folder):
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"format": 2}', "of format 2, written by another version"),
        ('{"format": "next"}', "of format 'next', written by another"),
        ("{", "which cannot be read"),
        ("[]", "which cannot be read"),
        ("{}", "which cannot be read"),
    ],
)
def test_other_cards_are_refused(tmp_path, text, message):
    folder = tmp_path / "s"
    card(folder, text)
    (folder / KEY / "shards").mkdir(parents=True)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=message):
        FeatureStore(folder)
    assert everything(tmp_path) == before


def test_a_card_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "s" / "store.json").mkdir(parents=True)
    with pytest.raises(ValueError, match="which cannot be read"):
        FeatureStore(tmp_path / "s")


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="which holds mother.txt"):
        FeatureStore(tmp_path / "letters")
    assert everything(tmp_path) == before


def test_files_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="must be a folder. Received: .*file"):
        FeatureStore(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_other_folders_in_a_store_are_left_alone(tmp_path):
    add(open_entry(tmp_path / "s"), [1])
    (tmp_path / "s" / "notes").mkdir()
    (tmp_path / "s" / "notes" / "a.txt").write_text("x")
    found = FeatureStore(tmp_path / "s")
    assert [info.key for info in found.ls()] == [KEY]
    found.clear()
    assert (tmp_path / "s" / "notes" / "a.txt").read_text() == "x"


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_limits_are_whole_numbers(limit):
    with pytest.raises(ValueError, match="`limit` must be an integer above 0"):
        FeatureStore(limit=limit)


# --- What cannot be written ---


def test_a_path_below_a_file_cannot_be_written(tmp_path):
    """Permissions stop nobody who is root; a file as a parent does."""
    (tmp_path / "file").write_text("x")
    entry = open_entry(tmp_path / "file" / "store")
    assert len(entry) == 0
    with (
        pytest.raises(OSError, match="must be a folder that can be written"),
        entry.writing(),
    ):
        pass


@pytest.fixture
def read_only(monkeypatch):
    """As root is not stopped by permissions: `open` refuses to write."""
    real = open

    def refuse(file, mode="r", *args, **kwargs):
        if set(mode) & set("wax+"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, mode, *args, **kwargs)

    return lambda: monkeypatch.setattr("builtins.open", refuse)


def test_a_read_only_store_is_read(tmp_path, read_only):
    add(open_entry(tmp_path / "s"), [1])
    read_only()
    entry = open_entry(tmp_path / "s")
    assert_holds(entry, [1])
    with (
        pytest.raises(PermissionError, match="can be written to: Permission"),
        entry.writing(),
    ):
        pass
    with pytest.raises(PermissionError, match=f"could not remove {KEY}"):
        FeatureStore(tmp_path / "s").clear()
    assert_holds(open_entry(tmp_path / "s"), [1])


def append_with_a_full_disk(directory):
    """The system refuses files above a size, in the middle of a write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    entry = open_entry(directory)
    with pytest.raises(OSError, match="space.* make room and start") as found:
        add(entry, range(1000))
    assert str(entry.folder) in str(found.value)
    assert_holds(entry, [1, 2])
    assert_misses(entry, [3])


def test_a_full_disk_leaves_what_was_there(tmp_path):
    add(open_entry(tmp_path / "s"), [1, 2])
    before = everything(tmp_path)
    assert in_child(append_with_a_full_disk, tmp_path / "s") == 0
    assert everything(tmp_path) == before
    entry = open_entry(tmp_path / "s")
    add(entry, range(1000))
    assert_holds(open_entry(tmp_path / "s"), range(1000))


def test_a_store_that_is_deleted_meanwhile_is_said(tmp_path):
    entry = open_entry(tmp_path / "s")
    with entry.writing():
        shutil.rmtree(tmp_path / "s")
        with pytest.raises(OSError, match="No such file.* safe: start again"):
            entry.append(make_digests([1]), make_arrays([1]))
    add(entry, [1])
    assert_holds(open_entry(tmp_path / "s"), [1])


# --- Limits ---


def make_entries(found, count, rows=100):
    """Entries of the same size, the first used longest ago."""
    keys = [f"{i}" * 16 for i in range(count)]
    for place, key in enumerate(keys):
        entry = found.open(key, ABOUT, TENSORS)
        add(entry, range(rows))
        if entry.folder:
            os.utime(entry.folder / "entry.json", (place + 1, place + 1))
        entry._used = place + 1.0
    return keys


@pytest.mark.parametrize("tier", ["disk", "memory"])
class TestLimit:
    @pytest.fixture
    def found(self, tmp_path, tier):
        return FeatureStore(tmp_path / "s" if tier == "disk" else None)

    def keys(self, found):
        return [info.key for info in found.ls()]

    def test_removes_what_was_not_used_for_longest(self, found):
        a, b, c = make_entries(found, 3)
        found.limit = found.size() + 50
        found.reserve(40)
        assert self.keys(found) == [c, b, a]
        found.reserve(100)
        assert self.keys(found) == [c, b]

    def test_use_counts(self, found):
        a, b, c = make_entries(found, 3)
        found.open(a, ABOUT, TENSORS)
        found.limit = found.size()
        found.reserve(1)
        assert self.keys(found) == [a, c]

    def test_keeps_what_it_is_told_to(self, found):
        a, b, c = make_entries(found, 3)
        found.limit = found.size()
        found.reserve(1, keep=[a, b])
        assert self.keys(found) == [b, a]

    def test_removes_nothing_where_there_is_no_room_anyway(self, found):
        keys = make_entries(found, 3)
        found.limit = found.size()
        with pytest.raises(OSError, match="no room for .* of features in"):
            found.reserve(found.limit, keep=keys[:1])
        assert len(found.ls()) == 3

    def test_size_is_the_sum(self, found, tmp_path, tier):
        make_entries(found, 2)
        assert found.size() == sum(info.num_bytes for info in found.ls())
        if tier == "disk":
            on_disk = sum(
                file.stat().st_size
                for folder in (tmp_path / "s").iterdir()
                if not folder.name.startswith(".") and folder.is_dir()
                for file in folder.rglob("*")
                if file.is_file()
            )
            assert found.size() == on_disk
        else:
            assert found.size() == 200 * (16 + 12 + 8)

    def test_clear_one(self, found):
        a, b, c = make_entries(found, 3)
        freed = found.clear(b[:5])
        assert freed == found.size() / 2
        assert self.keys(found) == [c, a]
        entry = found.open(b, ABOUT, TENSORS)
        assert len(entry) == 0

    def test_clear_all(self, found):
        make_entries(found, 2)
        size = found.size()
        assert found.clear() == size
        assert found.ls() == [] and found.size() == 0 and found.clear() == 0

    def test_clear_wants_one_key(self, found):
        add(found.open("aaaa", ABOUT, TENSORS), [1])
        add(found.open("aabb", ABOUT, TENSORS), [1])
        with pytest.raises(ValueError, match="'aa', which 2 have"):
            found.clear("aa")
        with pytest.raises(ValueError, match="'b', which 0 have"):
            found.clear("b")
        assert len(found.ls()) == 2


def test_leaves_room_on_the_disk(tmp_path, monkeypatch):
    found = FeatureStore(tmp_path / "s")
    make_entries(found, 2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        store.shutil,
        "disk_usage",
        lambda path: usage._replace(free=store._SPARE_BYTES + 10),
    )
    found.reserve(10)
    assert len(found.ls()) == 2
    found.reserve(11)
    assert len(found.ls()) == 1
    with pytest.raises(OSError, match="no room for"):
        found.reserve(10**9)
    assert len(found.ls()) == 1


def hold(directory, key, pipe):
    entry = open_entry(directory, key)
    with entry.writing():
        pipe.send("held")
        pipe.recv()


def test_what_another_process_writes_stays(tmp_path):
    found = FeatureStore(tmp_path / "s")
    a, b = make_entries(found, 2)
    here, there = FORK.Pipe()
    child = FORK.Process(target=hold, args=(tmp_path / "s", a, there))
    child.start()
    assert here.recv() == "held"
    # The child used it just now: make it the one to remove.
    os.utime(tmp_path / "s" / a / "entry.json", (1, 1))
    try:
        with pytest.raises(ValueError, match="another process is writing"):
            found.clear(a)
        found.limit = found.size()
        found.reserve(1)
        assert [info.key for info in found.ls()] == [a]
        with pytest.raises(OSError, match="other processes use what could"):
            found.reserve(found.limit - 1)
    finally:
        here.send("done")
        child.join()
    found.reserve(found.limit - 1)
    assert found.ls() == []


def append_one(directory, number):
    add(open_entry(directory), [number])


def test_clear_and_append_at_once_lose_nothing(tmp_path):
    """Processes wait for one lock, though the entry comes and goes."""
    children = [
        FORK.Process(target=append_one, args=(tmp_path / "s", number))
        for number in range(12)
    ]
    done = threading.Event()

    def clear():
        while not done.is_set():
            with contextlib.suppress(ValueError):
                FeatureStore(tmp_path / "s").clear()

    thread = threading.Thread(target=clear)
    for child in children:
        child.start()
    thread.start()
    for child in children:
        child.join()
    done.set()
    thread.join()
    assert [child.exitcode for child in children] == [0] * 12
    FeatureStore(tmp_path / "s").clear()
    assert not list((tmp_path / "s").glob(".trash-*"))


def test_what_was_half_removed_goes(tmp_path):
    add(open_entry(tmp_path / "s"), [1])
    (tmp_path / "s" / ".trash-x" / "shards").mkdir(parents=True)
    found = FeatureStore(tmp_path / "s")
    assert len(found.ls()) == 1
    found.clear()
    assert not (tmp_path / "s" / ".trash-x").exists()


def test_ls_says_what_is_there(tmp_path):
    before = time.time()
    add(open_entry(tmp_path / "s"), range(7))
    (info,) = FeatureStore(tmp_path / "s").ls()
    assert info.key == KEY and info.rows == 7
    assert info.description == ABOUT
    assert abs(info.used - before) < 60
    assert FeatureStore(tmp_path / "nothing").ls() == []


# --- Memory ---


def test_memory_is_shared_within_a_store_alone():
    found = FeatureStore()
    add(found.open(KEY, ABOUT, TENSORS), [1])
    assert_holds(found.open(KEY, ABOUT, TENSORS), [1])
    assert found.verify() == []
    assert len(FeatureStore().open(KEY, ABOUT, TENSORS)) == 0


def test_memory_keeps_a_copy():
    entry = Entry(KEY, ABOUT, TENSORS[:1], None)
    array = np.ones((2, 6), np.float32)[:, ::2]
    entry.append(make_digests([1, 2]), [array])
    assert entry.gather(entry.find(make_digests([2])))[0].tolist() == [[1] * 3]


# --- The default directory ---


def test_default_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_TRANSFER_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    place = Path("keras_transfer") / "features"
    assert default_directory() == tmp_path / ".cache" / place
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory() == tmp_path / "xdg" / place
    monkeypatch.setenv("KERAS_TRANSFER_CACHE", str(tmp_path / "own"))
    assert default_directory() == tmp_path / "own" / "features"
    assert not any(tmp_path.iterdir())


# --- The command ---


@pytest.fixture
def command(tmp_path):
    def run(*words):
        environment = {**os.environ, "KERAS_TRANSFER_CACHE": str(tmp_path)}
        # With neither TensorFlow nor Keras to be had.
        code = (
            "import sys, runpy\n"
            "sys.modules.update(dict.fromkeys(['tensorflow', 'keras']))\n"
            "sys.argv.insert(1, 'store')\n"
            "runpy.run_module('keras_transfer', "
            "run_name='__main__', alter_sys=True)\n"
        )
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_command(command, tmp_path):
    directory = tmp_path / "features"  # The default one, by the environment.
    found = FeatureStore(directory)
    a, b = make_entries(found, 2)
    result = command("ls")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith(b[:12])
    assert "100 rows" in result.stdout and "tiny" in result.stdout
    assert command("ls", a[:3]).stdout.count("\n") == 1
    assert "in 2 entries" in command("size").stdout
    assert "in 1 entries" in command("size", b).stdout
    assert command("verify").stdout == "no shard is damaged\n"

    shard = shards_of(found.open(a, ABOUT, TENSORS))[0]
    flip(shard / "tensor_0.npy")
    result = command("verify", "--directory", directory)
    assert result.returncode == 1
    assert result.stdout == f"damaged, and removed: {a}/{shard.name}\n"

    result = command("clear", "7")
    assert result.returncode == 1 and "which 0 have" in result.stderr
    assert command("clear", b).returncode == 0
    assert [info.key for info in found.ls()] == [a]
    assert "removed" in command("clear").stdout
    assert found.ls() == []


def test_command_refuses_other_folders(command, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text(json.dumps("dear"))
    result = command("clear", "--directory", tmp_path / "letters")
    assert result.returncode == 1 and "which holds a.txt" in result.stderr
    assert command("shred").returncode == 2

"""Maintenance of a feature store: `python -m keras_transfer store`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_transfer._utils.memory import format_bytes
from keras_transfer.caching.store.entry import EntryInfo
from keras_transfer.caching.store.store import FeatureStore, default_directory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Command-line arguments. Defaults to `None`, those of the
            process.

    Returns:
        The exit code, 1 if a shard is damaged or the command failed.
    """
    options = _parser().parse_args(arguments)
    try:
        store = FeatureStore(options.directory or default_directory())
        command: Callable[[FeatureStore, str | None], int]
        command = _COMMANDS[options.command]
        return command(store, options.key)
    except (ValueError, OSError) as err:
        sys.stderr.write(f"{err}\n")
        return 1


def _ls(store: FeatureStore, key: str | None) -> int:
    for info in store.ls():
        if info.key.startswith(key or ""):
            sys.stdout.write(f"{_line(info)}\n")
    return 0


def _size(store: FeatureStore, key: str | None) -> int:
    infos = [i for i in store.ls() if i.key.startswith(key or "")]
    total = sum(info.num_bytes for info in infos)
    sys.stdout.write(f"{format_bytes(total)} in {len(infos)} entries\n")
    return 0


def _clear(store: FeatureStore, key: str | None) -> int:
    sys.stdout.write(f"{format_bytes(store.clear(key))} removed\n")
    return 0


def _verify(store: FeatureStore, key: str | None) -> int:
    damaged = store.verify(key)
    for name in damaged:
        sys.stdout.write(f"damaged, and removed: {name}\n")
    if not damaged:
        sys.stdout.write("no shard is damaged\n")
    return 1 if damaged else 0


_COMMANDS = {"ls": _ls, "size": _size, "clear": _clear, "verify": _verify}


def _line(info: EntryInfo) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.used))
    about: dict[str, Any] = dict(info.description)
    view = about.get("view") or {}
    words = [
        info.key[:12],
        f"{info.rows:>8} rows",
        f"{format_bytes(info.num_bytes):>10}",
        used,
        str(about.get("name", "")),
        str(about.get("dtype", "")),
        str(view.get("kind", "")),
        "x".join(map(str, (about.get("input") or {}).get("shape", ()))),
    ]
    return "  ".join(words).rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m keras_transfer store",
        description="Lists, checks and clears a feature store.",
    )
    parser.add_argument(
        "command",
        choices=list(_COMMANDS),
        help="ls: list entries, most recently used first; size: total bytes; "
        "clear: remove entries; verify: compare all entries with their "
        "checksums, and remove damaged ones",
    )
    parser.add_argument(
        "key",
        nargs="?",
        metavar="KEY",
        help="key of one entry, or the beginning of it",
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="FOLDER",
        help="folder of the store; defaults to the user's "
        "(KERAS_TRANSFER_CACHE, or a folder in ~/.cache)",
    )
    return parser

"""`python -m keras_transfer COMMAND ...`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from keras_transfer.cli import store

# Each command takes the arguments after its name, and returns an exit code.
_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"store": store.main}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Command-line arguments. Defaults to `None`, those of the
            process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_transfer",
        description="Transfer learning with Keras 3.",
    )
    parser.add_argument(
        "command", choices=list(_COMMANDS), help="store: cached features"
    )
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="see COMMAND --help"
    )
    options = parser.parse_args(arguments)
    return _COMMANDS[options.command](options.arguments)

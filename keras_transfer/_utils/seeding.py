"""Seeds of new weights."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the initializers of layers that are built within the context.

    Keras draws the seeds of initializers from Python's `random`, whose state
    is restored afterwards.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)

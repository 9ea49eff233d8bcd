"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras_transfer._utils.checks import is_integer


def constant(step: int, *, total_steps: int, learning_rate: float) -> float:
    """Returns the same learning rate at every step.

    Args:
        step: Integer in `[0, total_steps]`, counted from 0.
        total_steps: Number of training steps, positive.
        learning_rate: The learning rate.

    Returns:
        The learning rate, a float.

    Raises:
        ValueError: If `step` or `total_steps` is out of range.

    Example:

    >>> constant(7, total_steps=100, learning_rate=0.1)
    0.1
    """
    check_step(step, total_steps)
    return learning_rate


def one_cycle(
    step: int,
    *,
    total_steps: int,
    learning_rate: float,
    warmup: float = 0.25,
    start_divisor: float = 25.0,
    final_divisor: float = 1e5,
) -> float:
    """Returns the learning rate of the one-cycle policy at a step.

    Half a cosine from `learning_rate / start_divisor` up to `learning_rate`
    over the first part of training, and half a cosine down to `learning_rate /
    final_divisor` over the rest.

    Args:
        step: Integer in `[0, total_steps]`, counted from 0.
        total_steps: Number of training steps, positive.
        learning_rate: Peak learning rate.
        warmup: Fraction in `(0, 1)` of the steps before the peak. Defaults to
            `0.25`.
        start_divisor: Ratio of peak and first rate. Defaults to `25.0`.
        final_divisor: Ratio of peak and last rate. Defaults to `1e5`.

    Returns:
        The learning rate, a float.

    Raises:
        ValueError: If `step`, `total_steps` or `warmup` is out of range.

    Example:

    >>> one_cycle(25, total_steps=100, learning_rate=0.1)
    0.1

    Reference:
        - Smith, 2018, https://arxiv.org/abs/1803.09820
    """
    check_step(step, total_steps)
    if not 0 < warmup < 1:
        raise ValueError(
            f"`warmup` must be a fraction in (0, 1). Received: warmup={warmup}"
        )
    peak = warmup * total_steps
    first = learning_rate / start_divisor
    last = learning_rate / final_divisor
    if step <= peak:
        return _half_cosine(first, learning_rate, step / peak)
    return _half_cosine(
        learning_rate, last, (step - peak) / (total_steps - peak)
    )


def warmup_cosine(
    step: int,
    *,
    total_steps: int,
    learning_rate: float,
    warmup: float | int = 0.1,
    final: float = 0.0,
) -> float:
    """Returns the learning rate of linear warm-up and cosine decay at a step.

    `learning_rate * step / w` up to step `w`, the end of the warm-up, then
    `final + (learning_rate - final) * (1 + cos(pi * f)) / 2` with
    `f = (step - w) / (total_steps - w)`.

    Args:
        step: Integer in `[0, total_steps]`, counted from 0.
        total_steps: Number of training steps, positive.
        learning_rate: Peak learning rate.
        warmup: Fraction in `[0, 1)` of the steps, a float, or their number in
            `[0, total_steps)`, an integer. Defaults to `0.1`.
        final: Learning rate at the last step, in `[0, learning_rate]`.
            Defaults to `0.0`.

    Returns:
        The learning rate, a float.

    Raises:
        ValueError: If `step`, `total_steps`, `warmup` or `final` is out of
            range.

    Example:

    >>> warmup_cosine(5, total_steps=100, learning_rate=0.1, warmup=10)
    0.05

    Reference:
        - Goyal et al., 2017, https://arxiv.org/abs/1706.02677 (warm-up)
        - Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983 (cosine)
    """
    check_step(step, total_steps)
    steps = warmup if is_integer(warmup) else warmup * total_steps
    if not 0 <= steps < total_steps:
        raise ValueError(
            "`warmup` must be a fraction in [0, 1) (a float), or a number of "
            f"steps in [0, {total_steps - 1}] (an integer). Received: "
            f"warmup={warmup!r}"
        )
    if not 0 <= final <= learning_rate:
        raise ValueError(
            f"`final` must be in [0, learning_rate={learning_rate}]. "
            f"Received: final={final}"
        )
    if step < steps:
        return learning_rate * step / steps
    return _half_cosine(
        learning_rate, final, (step - steps) / (total_steps - steps)
    )


def slanted_triangular(
    step: int,
    *,
    total_steps: int,
    learning_rate: float,
    cut: float = 0.1,
    ratio: float = 32.0,
) -> float:
    """Returns the slanted triangular learning rate at a step.

    `learning_rate * (1 + p * (ratio - 1)) / ratio`, where `p` rises linearly
    from 0 to 1 over the first part of training and falls back to 0 over the
    rest.

    Args:
        step: Integer in `[0, total_steps]`, counted from 0.
        total_steps: Number of training steps, positive.
        learning_rate: Peak learning rate.
        cut: Fraction in `(0, 1)` of the steps before the peak. Defaults to
            `0.1`.
        ratio: Ratio of peak and lowest rate, at least 1. Defaults to `32.0`.

    Returns:
        The learning rate, a float.

    Raises:
        ValueError: If `step`, `total_steps`, `cut` or `ratio` is out of range.

    Example:

    >>> slanted_triangular(55, total_steps=100, learning_rate=1.0)
    0.515625

    Reference:
        - Howard & Ruder, 2018, https://arxiv.org/abs/1801.06146
    """
    check_step(step, total_steps)
    if not 0 < cut < 1:
        raise ValueError(
            f"`cut` must be a fraction in (0, 1). Received: cut={cut}"
        )
    if not ratio >= 1:
        raise ValueError(
            f"`ratio` must be a number of at least 1. Received: ratio={ratio}"
        )
    # The paper rounds the position of the peak down, but not the slope after
    # it: in a short training its rate becomes negative.
    peak = cut * total_steps
    if step < peak:
        height = step / peak
    else:
        height = (total_steps - step) / (total_steps - peak)
    return learning_rate * (1 + height * (ratio - 1)) / ratio


def step_decay(
    step: int,
    *,
    total_steps: int,
    learning_rate: float,
    boundaries: Sequence[float | int] = (0.5, 0.75),
    factor: float = 0.1,
) -> float:
    """Returns the learning rate of piecewise constant decay at a step.

    `learning_rate * factor^n`, where `n` counts the boundaries below `step`. A
    boundary is the last step at the higher rate, as in
    `keras.optimizers.schedules.PiecewiseConstantDecay`.

    Args:
        step: Integer in `[0, total_steps]`, counted from 0.
        total_steps: Number of training steps, positive.
        learning_rate: Learning rate at the start.
        boundaries: Fractions of the steps in `(0, 1)`, floats, or steps in
            `[0, total_steps]`, integers, in increasing order. Defaults to
            `(0.5, 0.75)`.
        factor: Factor in `(0, 1]` at each boundary. Defaults to `0.1`.

    Returns:
        The learning rate, a float.

    Raises:
        ValueError: If `step`, `total_steps`, `boundaries` or `factor` is out
            of range.

    Example:

    >>> step_decay(51, total_steps=100, learning_rate=0.5, factor=0.5)
    0.25

    Reference:
        - He et al., 2016, https://arxiv.org/abs/1512.03385
    """
    check_step(step, total_steps)
    if not 0 < factor <= 1:
        raise ValueError(
            f"`factor` must be in (0, 1]. Received: factor={factor}"
        )
    steps = [b if is_integer(b) else b * total_steps for b in boundaries]
    good = all(
        0 <= b <= total_steps if is_integer(b) else 0 < b < 1
        for b in boundaries
    )
    if not good or any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise ValueError(
            "`boundaries` must be fractions in (0, 1) (floats), or steps in "
            f"[0, {total_steps}] (integers), in increasing order. Received: "
            f"boundaries={tuple(boundaries)}"
        )
    return learning_rate * factor ** sum(boundary < step for boundary in steps)


def check_step(step: int, total_steps: int) -> None:
    """Raises unless `0 <= step <= total_steps`."""
    if total_steps < 1 or not 0 <= step <= total_steps:
        raise ValueError(
            "`step` must be in [0, total_steps] and `total_steps` positive. "
            f"Received: step={step}, total_steps={total_steps}"
        )


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2

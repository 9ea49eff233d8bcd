"""Strategies: the phases in which parts of a model train.

A strategy is a plain tuple of `Phase` values; `fine_tune` accepts any such
tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keras_transfer._utils.checks import did_you_mean, is_integer, refuse
from keras_transfer.strategies.phase import Depth, Phase


class _Strategy(tuple[Phase, ...]):
    """A tuple of phases that shows its name."""

    __slots__ = ()

    def __repr__(self) -> str:
        phases = "".join(f"\n    {phase}," for phase in self)
        return f"{type(self).__name__}({phases}\n)"


class LinearProbe(_Strategy):
    """Trains the head alone, on a frozen backbone.

    Args:
        learning_rate: Highest rate. Defaults to `1e-3`.
        epochs: Passes over the data. Defaults to `10`.
        exact: Whether the output layer gets the exact solution, the logistic
            (or ridge) regression on the features, and no epochs follow. Needs a
            head of pooling and one dense layer. Defaults to `False`.

    Example:

    >>> [phase.depth for phase in LinearProbe(epochs=5)]
    [0]
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        learning_rate: float = 1e-3,
        epochs: int = 10,
        exact: bool = False,
    ) -> LinearProbe:
        phase = Phase(
            "linear probe",
            depth=0,
            epochs=0 if exact else epochs,
            learning_rate=learning_rate,
            exact_probe=exact,
        )
        return super().__new__(cls, (phase,))


class FineTune(_Strategy):
    """Trains the head first, then the last `depth` blocks with it.

    Args:
        depth: Integer, `"all"`, or `None` for the current `trainable` flags.
            Defaults to `"all"`.
        learning_rate: Highest rate of the second phase, that of the head.
            Defaults to `1e-3`.
        epochs: Passes over the data in the second phase. Defaults to `10`.
        head_epochs: Passes with the head alone first; `0` for none. Defaults to
            `1`.
        layer_decay: Factor in `(0, 1]` of the rate from block to block.
            Defaults to `0.9`.

    Example:

    >>> [phase.epochs for phase in FineTune(depth=2, epochs=5)]
    [1, 5]
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        depth: Depth = "all",
        learning_rate: float = 1e-3,
        epochs: int = 10,
        head_epochs: int = 1,
        layer_decay: float = 0.9,
    ) -> FineTune:
        phases = [
            Phase(
                "fine-tune",
                depth=depth,
                epochs=epochs,
                learning_rate=learning_rate,
                layer_decay=layer_decay,
            )
        ]
        if head_epochs:
            head = Phase("head", depth=0, epochs=head_epochs)
            phases.insert(0, head)
        return super().__new__(cls, phases)


class LPFT(_Strategy):
    """Linear probe, then fine-tuning: the head starts from the exact probe.

    A random head sends large, meaningless gradients into the backbone and
    distorts its features; one that is optimal on them does not.

    Args:
        depth: Integer or `"all"`. Defaults to `"all"`.
        learning_rate: Highest rate of fine-tuning. Defaults to `1e-4`.
        epochs: Passes over the data in fine-tuning. Defaults to `10`.
        layer_decay: Factor in `(0, 1]` of the rate from block to block.
            Defaults to `0.9`.

    Example:

    >>> [phase.exact_probe for phase in LPFT(depth=2)]
    [True, False]

    Reference:
        - Kumar et al., 2022, https://arxiv.org/abs/2202.10054
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        depth: Depth = "all",
        learning_rate: float = 1e-4,
        epochs: int = 10,
        layer_decay: float = 0.9,
    ) -> LPFT:
        probe = LinearProbe(exact=True)
        tuned = FineTune(
            depth=depth,
            learning_rate=learning_rate,
            epochs=epochs,
            head_epochs=0,
            layer_decay=layer_decay,
        )
        return super().__new__(cls, (*probe, *tuned))


class GradualUnfreezing(_Strategy):
    """Opens one more block in each phase, from the head downwards.

    Args:
        depth: Integer, blocks open at the end. Defaults to `3`.
        learning_rate: Highest rate of each phase. Defaults to `1e-3`.
        epochs: Passes over the data in the last phase. Defaults to `10`.
        phase_epochs: Passes in each phase before it. Defaults to `1`.
        layer_decay: Factor in `(0, 1]` of the rate from block to block.
            Defaults to `1 / 2.6`.

    Raises:
        ValueError: If `depth` is not an integer above 0.

    Example:

    >>> [phase.depth for phase in GradualUnfreezing(depth=2)]
    [0, 1, 2]

    Reference:
        - Howard & Ruder, 2018, https://arxiv.org/abs/1801.06146
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        depth: int = 3,
        learning_rate: float = 1e-3,
        epochs: int = 10,
        phase_epochs: int = 1,
        layer_decay: float = 1 / 2.6,
    ) -> GradualUnfreezing:
        if not is_integer(depth) or depth < 1:
            refuse("depth", "an integer above 0; see `blocks(model)`", depth)
        return super().__new__(
            cls,
            (
                Phase(
                    f"unfreeze {open_}" if open_ else "head",
                    depth=open_,
                    epochs=epochs if open_ == depth else phase_epochs,
                    learning_rate=learning_rate,
                    schedule="slanted-triangular",
                    layer_decay=layer_decay,
                )
                for open_ in range(depth + 1)
            ),
        )


class Surgical(_Strategy):
    """Trains the head and chosen blocks, wherever they are.

    Early blocks suit a change of inputs (blur, noise, another camera), late
    ones a change of labels.

    Args:
        blocks: Names of blocks, or patterns; see `blocks(model)`.
        learning_rate: Highest rate. Defaults to `3e-4`.
        epochs: Passes over the data. Defaults to `10`.
        head_epochs: Passes with the head alone first; `0` for none. Defaults to
            `1`.

    Example:

    >>> Surgical("stem")[-1].blocks
    ('stem',)

    Reference:
        - Lee et al., 2023, https://arxiv.org/abs/2210.11466
    """

    __slots__ = ()

    def __new__(
        cls,
        blocks: str | Sequence[str],
        *,
        learning_rate: float = 3e-4,
        epochs: int = 10,
        head_epochs: int = 1,
    ) -> Surgical:
        names = (blocks,) if isinstance(blocks, str) else tuple(blocks)
        phase = Phase(
            "surgical",
            blocks=names,
            epochs=epochs,
            learning_rate=learning_rate,
        )
        head = Phase("head", depth=0, epochs=head_epochs or 1)
        return super().__new__(cls, (head, phase) if head_epochs else (phase,))


class FromScratch(_Strategy):
    """Architecture transfer: the same structure, new weights, all trained.

    Args:
        learning_rate: Highest rate. Defaults to `3e-3`.
        epochs: Passes over the data. Defaults to `50`.

    Example:

    >>> FromScratch(epochs=20)[0].reinitialize
    True
    """

    __slots__ = ()

    def __new__(
        cls, *, learning_rate: float = 3e-3, epochs: int = 50
    ) -> FromScratch:
        phase = Phase(
            "from scratch",
            depth="all",
            epochs=epochs,
            learning_rate=learning_rate,
            train_batch_norm=True,
            reinitialize=True,
        )
        return super().__new__(cls, (phase,))


_BY_NAME: dict[str, Callable[..., tuple[Phase, ...]]] = {
    "linear-probe": LinearProbe,
    "fine-tune": FineTune,
    "lp-ft": LPFT,
    "gradual-unfreezing": GradualUnfreezing,
    "from-scratch": FromScratch,
}


def resolve(
    strategy: str | Sequence[Phase],
    *,
    depth: Depth = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
    has_head: bool = True,
) -> tuple[Phase, ...]:
    """Returns the phases of a strategy.

    Args:
        strategy: `"fine-tune"`, `"lp-ft"`, `"linear-probe"`,
            `"gradual-unfreezing"`, `"from-scratch"`, or a sequence of `Phase`.
        depth: Blocks to train, for a strategy by name. Defaults to `None`, its
            own default.
        learning_rate: Highest rate, for a strategy by name. Defaults to `None`,
            its own default.
        epochs: Epochs of the main phase, for a strategy by name. Defaults to
            `None`, its own default.
        has_head: Whether the model has a head, which `"fine-tune"` trains alone
            first. Defaults to `True`.

    Returns:
        Tuple of `Phase`.

    Raises:
        ValueError: If the name is unknown, there is no phase, or an argument
            has no meaning for the strategy.
        TypeError: If `strategy` is something else.

    Example:

    >>> [phase.name for phase in resolve("lp-ft", epochs=5)]
    ['linear probe', 'fine-tune']
    """
    overrides = {
        name: value
        for name, value in (
            ("depth", depth),
            ("learning_rate", learning_rate),
            ("epochs", epochs),
        )
        if value is not None
    }
    if isinstance(strategy, str):
        if strategy not in _BY_NAME:
            names = ", ".join(f'"{name}"' for name in _BY_NAME)
            raise ValueError(
                f"`strategy` must be {names} or a sequence of `Phase`. "
                f"Received: strategy={strategy!r}."
                f"{did_you_mean(strategy, _BY_NAME)}"
            )
        if (
            strategy in ("linear-probe", "from-scratch")
            and "depth" in overrides
        ):
            fixed = 0 if strategy == "linear-probe" else "all"
            if overrides.pop("depth") != fixed:
                raise ValueError(
                    f'`depth` must be {fixed!r} or left out for "{strategy}". '
                    f"Received: depth={depth!r}"
                )
        if strategy == "fine-tune" and not has_head:
            overrides["head_epochs"] = 0
        return tuple(_BY_NAME[strategy](**overrides))
    phases = (
        [p for p in strategy if isinstance(p, Phase)]
        if isinstance(strategy, Sequence)
        else None
    )
    if phases is None or len(phases) != len(strategy):
        raise TypeError(
            "`strategy` must be a name or a sequence of `Phase`. Received: "
            f"strategy={strategy!r:.200}"
        )
    if not phases:
        raise ValueError("`strategy` must hold a `Phase`. Received: none.")
    if overrides:
        raise ValueError(
            f"`{next(iter(overrides))}` must be left out where the phases of "
            f"`strategy` set it. Received: {overrides}. Use "
            "`dataclasses.replace(phase, ...)`, or the strategy's name."
        )
    return tuple(phases)

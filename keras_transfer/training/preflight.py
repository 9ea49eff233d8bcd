"""Runs `check` on the model as the phases of a run train it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keras_transfer.doctor import Diagnosis, check
from keras_transfer.doctor.model_checks import find_frozen_layers
from keras_transfer.strategies.trainable_sets import TrainableSets
from keras_transfer.training.spec import RunSpec


def diagnose(
    spec: RunSpec,
    sets: TrainableSets,
    ignore: Sequence[str],
    say: Callable[[str], None],
) -> Diagnosis:
    """Checks model and data before the first phase.

    Args:
        spec: The run.
        sets: The layers that train in each phase; restored at the end.
        ignore: Names of findings that are intended.
        say: Function called with a line for each warning.

    Returns:
        The `Diagnosis`.

    Raises:
        ValueError: If a finding is an error.
    """
    model = spec.model
    compiled = model.compiled
    # As the user left the model: phases close layers as well. A depth that is a
    # number has been checked by `sets`.
    opens_all = any(phase.depth == "all" for phase in spec.phases)
    frozen = tuple(find_frozen_layers(model)) if opens_all else ()
    try:
        for phase in spec.phases:
            sets.apply(phase)
        diagnosis = check(model, spec.given, loss=spec.task.loss)
    finally:
        sets.restore()
        model.compiled = compiled
    if spec.phases[0].reinitialize:
        diagnosis = diagnosis.without("batch-norm-moves")
    # The run compiles the model again.
    diagnosis = Diagnosis(
        (*diagnosis.without("stale-compile", "frozen-layers"), *frozen)
    ).without(*spec.task.unchecked, *ignore)
    diagnosis.raise_for_errors()
    for finding in diagnosis.warnings:
        say(f"{finding.message} {finding.cure}")
    return diagnosis

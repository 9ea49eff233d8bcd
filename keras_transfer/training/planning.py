"""What each phase computes once, where that is kept, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_transfer.data import Augmentation
from keras_transfer.features.cost import (
    BACKWARD,
    count_flops,
    measure_memory,
    speed_up_bound,
    step_seconds,
    time_of,
)
from keras_transfer.features.cuts import Cut, find_cut, halves, network_to
from keras_transfer.features.extraction import open_store
from keras_transfer.features.filling import Compute, compiled
from keras_transfer.features.store import (
    FeatureStore,
    default_directory,
    free_memory,
    readable,
)
from keras_transfer.strategies import Depth, Phase
from keras_transfer.training.identity import check_penalty, objection_to_parts
from keras_transfer.training.objectives import says_yes_or_no
from keras_transfer.training.phases import choose_phases
from keras_transfer.training.plans import Plan, PlannedPhase
from keras_transfer.training.settings import Settings
from keras_transfer.training.sources import Source, open_source
from keras_transfer.training.trainable import TrainableSets

# Of the free memory that activations may take.
_SHARE = 4
_LOOK = 32


def plan(
    model: keras.Model,
    data: Any,
    *,
    strategy: str | Sequence[Phase] | None = None,
    depth: Depth = None,
    epochs: int | None = None,
    penalty: Any = None,
    batch_size: int = 32,
    augment: Augmentation | None = None,
    store: Any = None,
    views: int | None = None,
) -> Plan:
    """Says what `fine_tune` would compute once, where it is kept, and why.

    Nothing is trained and no example is read but the labels; the network is
    timed on noise for a second or two. The arguments are those of `fine_tune`.

    Args:
        model: A model as for `fine_tune`.
        data: The data.
        strategy: A name or phases. Defaults to `None`.
        depth: Blocks to train. Defaults to `None`.
        epochs: Epochs of the main phase. Defaults to `None`.
        penalty: A penalty or `None`. Defaults to `None`.
        batch_size: Examples in a step. Defaults to `32`.
        augment: Changes of the training images. Defaults to `None`.
        store: Where activations are kept. Defaults to `None`.
        views: Fixed views of each training image. Defaults to `None`.

    Returns:
        A `Plan`; `explain()` prints it.

    Raises:
        ValueError: If arguments do not fit each other, the model or the data.
        TypeError: If an argument is of another type.

    Example:

    >>> data = load_images((arrays, labels))
    >>> model = build_classifier("ResNet20", data=data)
    >>> plan(model, data, strategy="linear-probe").phases[0].cut.name
    'after pooling'
    """
    settings = Settings(
        batch_size=batch_size, augment=augment, store=store, views=views
    )
    phases = choose_phases(model, strategy, depth=depth, epochs=epochs)
    check_penalty(model, penalty, phases)
    source = open_source(
        data,
        batch_size=batch_size,
        seed=0,
        augment=augment,
        cache=False,
        one_output=says_yes_or_no(model),
    )
    options = Options(
        settings.store,
        settings.views,
        augment is not None,
        batch_size,
        objection_to_parts(model, penalty),
    )
    compiled = model.compiled
    try:
        sets = TrainableSets(model, phases)
        return make_plan(
            model, source, phases, sets, options, always_measure=True
        )[0]
    finally:
        model.compiled = compiled


class _Candidate(NamedTuple):
    """A phase that could run from kept activations."""

    place: int
    cut: Cut
    num_bytes: int
    frozen_flops: int
    flops: int


class Options(NamedTuple):
    """What the user decides about keeping activations.

    Attributes:
        store: A `FeatureStore`, the folder of one, `"memory"`, `None` to
            choose, or `False` for none.
        views: Views of each training example, or `None`.
        augments: Whether images change from pass to pass.
        batch_size: Examples in a batch.
        objection: Why nothing may be kept, or `""`.
    """

    store: Any
    views: int | None
    augments: bool
    batch_size: int
    objection: str


def make_plan(
    model: keras.Model,
    source: Source,
    phases: Sequence[Phase],
    sets: TrainableSets,
    options: Options,
    networks: Networks | None = None,
    always_measure: bool = False,
) -> tuple[Plan, FeatureStore | None]:
    """Decides for each phase whether activations are kept, where and why.

    Measures the networks below the cuts, some tenths of a second.

    Args:
        model: The model.
        source: The data.
        phases: The phases.
        sets: What trains in each; as it was before at the end.
        options: What the user decides.
        networks: Keeps what is compiled for a measurement. Defaults to `None`.
        always_measure: Whether to measure where one pass leaves nothing to
            weigh, too. Defaults to `False`.

    Returns:
        The plan, and the store that it keeps activations in, if any.
    """
    cuts: list[Cut | str] = []
    try:
        for phase in phases:
            sets.apply(phase)
            objection = _objection(phase, source, options)
            cuts.append(objection or _cut_of(model))
    finally:
        sets.restore()
    candidates = _candidates(model, source, cuts, options)
    store, tier, refused = _choose_store(candidates, options)
    # One pass costs the same either way: nothing to weigh.
    weighed = any(phases[c.place].epochs > 1 for c in candidates)
    weighed |= always_measure and bool(candidates)
    rates = None
    if weighed:
        rates = _measure(model, source, candidates, networks or Networks())
    planned = []
    by_place = {c.place: c for c in candidates}
    for place, phase in enumerate(phases):
        cut = cuts[place]
        candidate = by_place.get(place)
        passes = phase.epochs + phase.exact_probe
        if candidate is None or isinstance(cut, str):
            why = f"nothing is kept, since {cut}."
            planned.append(_direct(phase.name, passes, why))
            continue
        planned.append(
            _plan_phase(
                phase, passes, candidate, source, options, rates, tier, refused
            )
        )
    kept = any(phase.cut for phase in planned)
    return Plan(tuple(planned)), store if kept else None


def _cut_of(model: keras.Model) -> Cut | str:
    cut = find_cut(model)
    if isinstance(cut, str):
        return cut
    above = [id(v) for v in halves(model, cut)[1].trainable_variables]
    if above != [id(v) for v in model.trainable_variables]:
        # An optimizer that goes over to another phase counts on it.
        return "variables above the cut would come in another order"
    return cut


def _direct(name: str, passes: int, why: str) -> PlannedPhase:
    return PlannedPhase(
        name, passes, None, "", 1, 0, 0, 0, None, None, 1.0, why
    )


def _objection(phase: Phase, source: Source, options: Options) -> str:
    if options.store is False:
        return "`store` is False"
    if options.objection:
        return options.objection
    if phase.reinitialize:
        return "the phase begins from new weights"
    if not source.indexed:
        return (
            "a tf.data.Dataset cannot be read by index; give arrays or what "
            "`load_images` returns"
        )
    if options.augments and options.views is None and phase.epochs:
        return (
            "images change in each pass; `views=4` would keep four fixed views "
            "of each instead, at some cost in accuracy"
        )
    return ""


def _candidates(
    model: keras.Model,
    source: Source,
    cuts: Sequence[Cut | str],
    options: Options,
) -> list[_Candidate]:
    found = []
    examples = {n: len(i.examples) for n, i in source.indexed.items()}
    count = examples.get("train", 0) * (options.views or 1)
    count += examples.get("validation", 0)
    for place, cut in enumerate(cuts):
        if isinstance(cut, str):
            continue
        below, above = halves(model, cut)
        shape = source.indexed["train"].examples.shape
        outputs = keras.tree.flatten(
            below.compute_output_spec(keras.KerasTensor((None, *shape)))
        )
        shapes = [tuple(t.shape[1:]) for t in outputs]
        frozen = count_flops(below, [shape])
        row = sum(4 * int(np.prod(s)) for s in shapes)
        found.append(
            _Candidate(
                place,
                cut,
                count * row,
                frozen,
                frozen + count_flops(above, shapes),
            )
        )
    return found


def _choose_store(
    candidates: Sequence[_Candidate], options: Options
) -> tuple[FeatureStore | None, str, str]:
    """Returns the store, its tier, and why there is none."""
    if not candidates:
        return None, "", ""
    sizes = {c.cut: c.num_bytes for c in candidates}
    total = sum(sizes.values())
    if options.store is not None:
        store = open_store(options.store)
    elif total <= free_memory() // _SHARE:
        store = FeatureStore()
    else:
        store = FeatureStore(default_directory())
    tier = "memory" if store.directory is None else "disk"
    if total > store.limit:
        return (
            None,
            "",
            f"its {readable(total)} are more than the {readable(store.limit)} "
            f"that the store on {tier} may hold",
        )
    return store, tier, ""


class _Rates(NamedTuple):
    flops: float  # a second, forward
    gather: float  # bytes a second from memory


def _measure(
    model: keras.Model,
    source: Source,
    candidates: Sequence[_Candidate],
    networks: Networks,
) -> _Rates:
    import tensorflow as tf

    deepest = max(candidates, key=lambda c: c.frozen_flops)
    shape = source.indexed["train"].examples.shape
    # Those that are computed together, so that nothing is compiled twice.
    cuts = together([c.cut for c in candidates])
    forward = networks.compiled(model, cuts, shape)
    # Noise: no image passes before its time.
    noise = np.random.default_rng(0).uniform(0, 255, (_LOOK, *shape))
    images = tf.constant(noise, tf.float32)
    forward(images)
    seconds = time_of(lambda: forward(images), least=0.1)
    return _Rates(deepest.frozen_flops * _LOOK / seconds, measure_memory())


def together(cuts: Sequence[Cut | None]) -> list[Cut]:
    """The first cut and those of later phases that the same pass can give.

    A later one can come along as long as no phase before it trains anything
    below it.

    Args:
        cuts: Those of the phases, in order; `None` where all may train.

    Returns:
        Different cuts.
    """
    found = []
    deepest = (-1, False)
    for cut in cuts:
        if cut is None:
            break
        if cut.order >= deepest:
            found.append(cut)
            deepest = cut.order
    return list(dict.fromkeys(found))


class Networks:
    """Compiles networks up to cuts, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Cut, ...], Compute] = {}

    def compiled(
        self, model: keras.Model, cuts: Sequence[Cut], shape: Sequence[int]
    ) -> Compute:
        """Returns the network from inputs to cuts.

        Args:
            model: The model, always the same.
            cuts: The cuts.
            shape: Of one input.

        Returns:
            What `features.filling.compiled` makes.
        """
        key = tuple(cuts)
        if key not in self._known:
            self._known[key] = compiled(network_to(model, cuts), shape)
        return self._known[key]


def _plan_phase(
    phase: Phase,
    passes: int,
    candidate: _Candidate,
    source: Source,
    options: Options,
    rates: _Rates | None,
    tier: str,
    refused: str,
) -> PlannedPhase:
    count = len(source.indexed["train"].examples)
    held_out = source.indexed.get("validation")
    held = 0 if held_out is None else len(held_out.examples)
    views = options.views or 1
    frozen, flops = candidate.frozen_flops, candidate.flops
    seconds = direct = None
    cut: Cut | None = candidate.cut
    bound = speed_up_bound(frozen / flops, passes)
    if rates is not None:
        below = frozen / rates.flops
        above = (flops - frozen) / rates.flops
        row = candidate.num_bytes / max(count * views + held, 1)
        step = step_seconds() / options.batch_size
        train = phase.epochs * (
            count * (BACKWARD * above + step) + held * above
        )
        extraction = (count * views + held) * below
        reads = phase.epochs * (count + held) * row / rates.gather
        seconds = extraction + train + reads
        direct = train + passes * (count + held) * below
    if refused:
        cut, why = None, f"nothing is kept, since {refused}."
    elif seconds is not None and direct is not None and seconds > direct * 1.05:
        cut = None
        why = (
            f"nothing is kept, since computing {candidate.cut.name} once and "
            f"reading it takes {seconds:.1f} s, computing it in each of "
            f"{passes} passes {direct:.1f} s."
        )
    else:
        share = frozen / flops
        why = (
            f"{share:.0%} of the operations are below {candidate.cut.name}, "
            f"where nothing changes over {passes} passes"
        )
        if options.augments and options.views:
            why += (
                f"; {views} fixed views of each image stand for new ones in "
                "each pass, which can cost accuracy"
            )
        why += "."
    kept = cut is not None
    return PlannedPhase(
        phase.name,
        passes,
        cut,
        tier if kept else "",
        views if kept else 1,
        frozen,
        flops,
        candidate.num_bytes if kept else 0,
        seconds,
        direct,
        bound,
        why,
    )

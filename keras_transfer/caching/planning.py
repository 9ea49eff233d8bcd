"""Plans what each phase caches, where, and whether caching pays off."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_transfer._utils.memory import format_bytes, free_memory
from keras_transfer.caching.cost import (
    Candidate,
    Rates,
    count_flops,
    measure_disk,
    measure_memory,
    output_shapes,
    speed_up_bound,
    time_of,
)
from keras_transfer.caching.cuts import Cut, find_cut, network_to
from keras_transfer.caching.eligibility import CachePolicy, Ineligible
from keras_transfer.caching.networks import Networks, networks_for, together
from keras_transfer.caching.plan import Plan, PlannedPhase
from keras_transfer.caching.store.store import (
    Choice,
    FeatureStore,
    default_directory,
)
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.distribute import ProcessGroup
from keras_transfer.strategies.phase import Phase
from keras_transfer.strategies.trainable_sets import TrainableSets
from keras_transfer.structure.model_parts import has_children

# The cache may take this share of the free memory: one byte in four.
_FREE_BYTES_PER_CACHED_BYTE = 4


def make_plan(
    model: keras.Model,
    data: TrainingData,
    phases: Sequence[Phase],
    sets: TrainableSets,
    policy: CachePolicy,
    networks: Networks | None = None,
    always_measure: bool = False,
    group: ProcessGroup | None = None,
) -> tuple[Plan, FeatureStore | None]:
    """Decides for each phase whether to cache activations, and where.

    A store named by the user is used wherever that is possible. Otherwise the
    network below the cuts is timed, and activations are not cached where
    computing them is faster than reading them, or where they are used once.

    Args:
        model: The model.
        data: The data.
        phases: The phases.
        sets: Trainable layers of each phase; restored at the end.
        policy: Cache policy of the run.
        networks: Compiled networks, reused after a measurement. Defaults to
            `None`.
        always_measure: Whether to measure even where no decision depends on it.
            Defaults to `False`.
        group: Processes that train; the first one decides for all. Defaults to
            `None`: this one.

    Returns:
        The plan, and the store of its activations, if any.

    Raises:
        ValueError: If the user asks for fixed views and they cannot be cached.
    """
    networks = networks or networks_for(model, phases)
    group = group or ProcessGroup(None)
    draft = _draft(model, data, phases, sets, policy, networks)
    is_automatic = isinstance(policy.store, Choice)
    passes = sum(c.passes for c in draft.candidates.values())
    if is_automatic and passes <= 1 and not policy.views:
        for place in list(draft.candidates):
            if not phases[place].exact_probe:
                draft.drop(place, "each example passes once")
    store = _choose_store(list(draft.candidates.values()), policy, group)
    if store is None:
        for place in list(draft.candidates):
            draft.drop(
                place,
                "memory is too small; pass as `store` a folder that all "
                "workers see",
            )
    rates = None
    # A named store is always used, and a single pass costs the same with and
    # without a cache.
    weighed = is_automatic and passes > 1
    if draft.candidates and (weighed or always_measure):
        rates = _measure_for_all(
            lambda: _measure(model, data, draft, len(phases), store, networks),
            group,
        )
    if rates is not None and is_automatic and not policy.views:
        _drop_what_is_slower(draft, rates, policy.batch_size)
    planned = set(draft.candidates)
    _drop_what_does_not_fit(draft, store, group)
    lost = sorted(planned - set(draft.candidates))
    if lost and policy.must_fit:
        raise ValueError(
            "`store` must have room for the activations of each phase. "
            f"Received: too little room for {phases[lost[0]].name}: "
            f"{draft.reasons[lost[0]]}. Raise `limit` of the "
            "`FeatureStore`, search other depths, or pass store=None."
        )
    if policy.views:
        _check_views(phases, draft.candidates, draft.reasons)
    rows = tuple(
        _plan_cached(phase, draft.candidates[place], store, rates, policy)
        if place in draft.candidates
        else _plan_uncached(phase, draft.reasons[place])
        for place, phase in enumerate(phases)
    )
    return Plan(rows), store if draft.candidates else None


@dataclasses.dataclass
class _Draft:
    """Phases that can be cached, and reasons for the others, by their place."""

    candidates: dict[int, Candidate] = dataclasses.field(default_factory=dict)
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)

    def drop(self, place: int, reason: str) -> None:
        """Removes a candidate."""
        self.reasons[place] = reason
        del self.candidates[place]


def _draft(
    model: keras.Model,
    data: TrainingData,
    phases: Sequence[Phase],
    sets: TrainableSets,
    policy: CachePolicy,
    networks: Networks,
) -> _Draft:
    """Finds the cut of each phase and the size of its activations."""
    draft = _Draft()
    try:
        for place, phase in enumerate(phases):
            sets.apply(phase)
            cut = _why_not(phase, data, policy) or _cut_of(
                model, data, networks
            )
            if isinstance(cut, Ineligible):
                draft.reasons[place] = cut.reason
            else:
                draft.candidates[place] = _measure_size(
                    model, data, phase, cut, policy
                )
    finally:
        sets.restore()
    return draft


def _drop_what_is_slower(draft: _Draft, rates: Rates, batch_size: int) -> None:
    """Drops phases that are faster to recompute than to cache and read."""
    for place, candidate in list(draft.candidates.items()):
        cached, direct = candidate.seconds(rates, batch_size)
        if cached > 1.05 * direct:
            draft.drop(
                place,
                f"caching the activations {candidate.cut.name} takes "
                f"{cached:.1f} s, computing them in each of "
                f"{candidate.passes} passes {direct:.1f} s",
            )


def _why_not(
    phase: Phase, data: TrainingData, policy: CachePolicy
) -> Ineligible | None:
    if policy.store is False:
        return Ineligible("`store` is False")
    if policy.ineligible:
        return policy.ineligible
    if phase.reinitialize:
        return Ineligible("the phase starts from new weights")
    if not data.indexed:
        return Ineligible(
            "a tf.data.Dataset cannot be read by index; pass arrays, or an "
            "`ImageData` from `load_images`"
        )
    if policy.augment is not None and policy.views is None and phase.epochs:
        return Ineligible(
            "images change in each pass; `views=4` would cache four fixed "
            "views of each instead, at some cost in accuracy"
        )
    return None


def _cut_of(
    model: keras.Model, data: TrainingData, networks: Networks
) -> Cut | Ineligible:
    cut = find_cut(model)
    if isinstance(cut, Ineligible):
        return cut
    shape = data.indexed["train"].examples.shape
    if has_children(model):
        (given,) = output_shapes(model.get_layer("preprocessing"), [shape])
        if None in given:
            return Ineligible(
                "texts of a batch are padded to its longest one "
                "(`bucketing=True`)"
            )
    return networks.why_not(model, cut, shape) or cut


def _measure_size(
    model: keras.Model,
    data: TrainingData,
    phase: Phase,
    cut: Cut,
    policy: CachePolicy,
) -> Candidate:
    below = network_to(model, [cut])
    shape = data.indexed["train"].examples.shape
    shapes = output_shapes(below, [shape])
    return Candidate(
        cut=cut,
        epochs=phase.epochs,
        passes=phase.epochs + phase.exact_probe,
        train=len(data.indexed["train"].examples),
        held_out=sum(
            len(part.examples)
            for name, part in data.indexed.items()
            if name != "train"
        ),
        views=policy.views or 1,
        row_bytes=sum(4 * int(np.prod(s)) for s in shapes),
        frozen_flops=count_flops(below, [shape]),
        flops=count_flops(model, [shape]),
    )


def _choose_store(
    candidates: Sequence[Candidate], policy: CachePolicy, group: ProcessGroup
) -> FeatureStore | None:
    """Returns the store, or `None` where several processes need a folder."""
    if not candidates:
        return None
    if isinstance(policy.store, FeatureStore):
        return policy.store
    choice: Choice = policy.store
    if choice.store is None:
        total = sum({c.cut: c.num_bytes for c in candidates}.values())
        small = all(
            content == b"1"
            for content in group.gather(
                b"%d" % (total <= free_memory() // _FREE_BYTES_PER_CACHED_BYTE)
            )
        )
        if not small and group.size > 1:
            return None
        choice.store = FeatureStore(None if small else default_directory())
    return choice.store


def _drop_what_does_not_fit(
    draft: _Draft, store: FeatureStore | None, group: ProcessGroup
) -> None:
    """Keeps the cuts that save most operations per byte."""
    if store is None:
        return
    candidates = draft.candidates
    room = min(int(limit) for limit in group.gather(b"%d" % store.limit))
    planned_cuts: set[Cut] = set()
    for place in sorted(candidates, key=lambda p: -candidates[p].worth):
        candidate = candidates[place]
        if candidate.cut in planned_cuts:
            continue
        if candidate.num_bytes > room:
            draft.drop(
                place,
                f"its {format_bytes(candidate.num_bytes)} exceed the "
                f"{format_bytes(room)} that are free in the store on "
                f"{tier_of(store)}",
            )
            continue
        planned_cuts.add(candidate.cut)
        room -= candidate.num_bytes


def _check_views(
    phases: Sequence[Phase],
    candidates: Mapping[int, Candidate],
    reasons: Mapping[int, str],
) -> None:
    """Raises where fixed views would not be used in training."""
    places = [p for p, phase in enumerate(phases) if phase.epochs]
    if any(place in candidates for place in places):
        return
    why = reasons.get(places[0], "") if places else "nothing is trained"
    raise ValueError(
        "`views` must be None where no activations can be cached: images then "
        f"change in each pass. Received: views, but {why}. Choose a smaller "
        "`depth`, or leave `views` out."
    )


def tier_of(store: FeatureStore) -> str:
    """Returns `"memory"` or `"disk"`."""
    return "memory" if store.directory is None else "disk"


def _measure(
    model: keras.Model,
    data: TrainingData,
    draft: _Draft,
    num_phases: int,
    store: FeatureStore | None,
    networks: Networks,
) -> Rates:
    candidates = draft.candidates
    cuts = [
        candidates[place].cut if place in candidates else None
        for place in range(num_phases)
    ]
    first = min(candidates)
    # The network of the first pass, so that nothing is compiled twice.
    cuts_of_first_pass = together(cuts[first:])
    shape = data.indexed["train"].examples.shape
    forward = networks.compiled(model, cuts_of_first_pass, shape)
    inputs = networks.look(model, shape)
    np.asarray(forward(inputs)[0])
    # The result is read, since calls return before a GPU has finished.
    seconds = time_of(lambda: np.asarray(forward(inputs)[0]), min_seconds=0.1)
    flops = max(
        c.frozen_flops
        for c in candidates.values()
        if c.cut in cuts_of_first_pass
    )
    folder = None if store is None else store.directory
    return Rates(
        flops * len(inputs) / seconds,
        measure_memory() if folder is None else measure_disk(folder),
    )


def _measure_for_all(
    measure: Callable[[], Rates], group: ProcessGroup
) -> Rates:
    """Returns the rates of the first process, so that all decide alike."""
    arrays = group.share(lambda: {"rates": np.array(measure())}) or {}
    return Rates(*arrays["rates"].tolist())


def _plan_cached(
    phase: Phase,
    candidate: Candidate,
    store: FeatureStore | None,
    rates: Rates | None,
    policy: CachePolicy,
) -> PlannedPhase:
    seconds = direct = None
    if rates is not None:
        seconds, direct = candidate.seconds(rates, policy.batch_size)
    # Fraction of forward operations below the cut, f in the bound.
    share = candidate.frozen_flops / candidate.flops
    why = (
        f"{share:.0%} of the operations are up to {candidate.cut.name}, where "
        f"nothing changes over {candidate.passes} passes"
    )
    if policy.augment is not None and policy.views and phase.epochs:
        why += (
            f"; {candidate.views} fixed views of each image replace new ones "
            "in each pass, which can cost accuracy"
        )
    return PlannedPhase(
        name=phase.name,
        passes=candidate.passes,
        cut=candidate.cut,
        tier="" if store is None else tier_of(store),
        views=candidate.views,
        frozen_flops=candidate.frozen_flops,
        flops=candidate.flops,
        num_bytes=candidate.num_bytes,
        seconds=seconds,
        direct=direct,
        bound=speed_up_bound(share, candidate.passes),
        why=why + ".",
    )


def _plan_uncached(phase: Phase, reason: str) -> PlannedPhase:
    return PlannedPhase(
        name=phase.name,
        passes=phase.epochs + phase.exact_probe,
        why=f"nothing is cached because {reason}.",
    )

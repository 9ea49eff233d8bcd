"""What each phase computes once, where that is kept, and what it is worth."""

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
from keras_transfer.caching.networks import Networks, networks_for, together
from keras_transfer.caching.plan import Plan, PlannedPhase
from keras_transfer.caching.policy import CachePolicy, Ineligible
from keras_transfer.caching.store.store import (
    Choice,
    FeatureStore,
    default_directory,
)
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.distribute import ProcessGroup
from keras_transfer.strategies.applying import TrainableSets
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure.model_parts import has_children

# One in so many bytes of the free memory may be taken.
_PART_OF_MEMORY = 4


def make_plan(
    model: keras.Model,
    source: TrainingData,
    phases: Sequence[Phase],
    sets: TrainableSets,
    policy: CachePolicy,
    networks: Networks | None = None,
    always_measure: bool = False,
    team: ProcessGroup | None = None,
) -> tuple[Plan, FeatureStore | None]:
    """Decides for each phase whether activations are kept, where and why.

    A store that the user named is used wherever it can be. Otherwise the
    network below the cuts is timed, and what is faster computed than read is
    not kept; nor is what is passed once.

    Args:
        model: The model.
        source: The data.
        phases: The phases.
        sets: What trains in each; as it was before at the end.
        policy: What the user decides.
        networks: Keeps what is compiled for a measurement. Defaults to `None`.
        always_measure: Whether to measure where there is nothing to weigh,
            too. Defaults to `False`.
        team: The processes that train; the first one decides for all. Defaults
            to `None`: this one.

    Returns:
        The plan, and the store that it keeps activations in, if any.

    Raises:
        ValueError: If the user wants fixed views and they cannot be kept.
    """
    networks = networks or networks_for(model, phases)
    team = team or ProcessGroup(None)
    draft = _draft(model, source, phases, sets, policy, networks)
    free = isinstance(policy.store, Choice)
    passes = sum(c.passes for c in draft.candidates.values())
    if free and passes <= 1 and not policy.views:
        for place in list(draft.candidates):
            if not phases[place].exact_probe:
                draft.drop(place, "the examples pass once")
    store = _choose_store(list(draft.candidates.values()), policy, team)
    if store is None:
        for place in list(draft.candidates):
            draft.drop(
                place,
                "there is too little memory for it; name a folder that all "
                "workers see as `store`",
            )
    rates = None
    # A named store is used; one pass costs the same either way.
    weighed = free and passes > 1
    if draft.candidates and (weighed or always_measure):
        rates = _measure_for_all(
            lambda: _measure(
                model, source, draft, len(phases), store, networks
            ),
            team,
        )
    if rates is not None and free and not policy.views:
        _drop_what_is_slower(draft, rates, policy.batch_size)
    planned = set(draft.candidates)
    _drop_what_does_not_fit(draft, store, team)
    lost = sorted(planned - set(draft.candidates))
    if lost and policy.must_fit:
        raise ValueError(
            "`store` must have room for what is to be computed once. Received: "
            f"one where it has not: {phases[lost[0]].name}, "
            f"{draft.reasons[lost[0]]}. Raise `limit` of the `FeatureStore`, "
            "search other depths, or pass store=None."
        )
    if policy.views:
        _check_views(phases, draft.candidates, draft.reasons)
    rows = tuple(
        _keep(phase, draft.candidates[place], store, rates, policy)
        if place in draft.candidates
        else _recompute(phase, draft.reasons[place])
        for place, phase in enumerate(phases)
    )
    return Plan(rows), store if draft.candidates else None


@dataclasses.dataclass
class _Draft:
    """Phases that may be cached, and why others may not, by their place."""

    candidates: dict[int, Candidate] = dataclasses.field(default_factory=dict)
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)

    def drop(self, place: int, reason: str) -> None:
        """Takes a candidate out."""
        self.reasons[place] = reason
        del self.candidates[place]


def _draft(
    model: keras.Model,
    source: TrainingData,
    phases: Sequence[Phase],
    sets: TrainableSets,
    policy: CachePolicy,
    networks: Networks,
) -> _Draft:
    """Finds the cut of each phase, and what its activations would weigh."""
    draft = _Draft()
    try:
        for place, phase in enumerate(phases):
            sets.apply(phase)
            cut = _why_not(phase, source, policy) or _cut_of(
                model, source, networks
            )
            if isinstance(cut, Ineligible):
                draft.reasons[place] = cut.reason
            else:
                draft.candidates[place] = _measure_size(
                    model, source, phase, cut, policy
                )
    finally:
        sets.restore()
    return draft


def _drop_what_is_slower(draft: _Draft, rates: Rates, batch_size: int) -> None:
    """Drops what takes longer to compute once and read than each time."""
    for place, candidate in list(draft.candidates.items()):
        cached, direct = candidate.seconds(rates, batch_size)
        if cached > 1.05 * direct:
            draft.drop(
                place,
                f"computing what is {candidate.cut.name} once and reading "
                f"it takes {cached:.1f} s, computing it in each of "
                f"{candidate.passes} passes {direct:.1f} s",
            )


def _why_not(
    phase: Phase, source: TrainingData, policy: CachePolicy
) -> Ineligible | None:
    if policy.store is False:
        return Ineligible("`store` is False")
    if policy.ineligible:
        return policy.ineligible
    if phase.reinitialize:
        return Ineligible("the phase begins from new weights")
    if not source.indexed:
        return Ineligible(
            "a tf.data.Dataset cannot be read by index; give arrays or what "
            "`load_images` returns"
        )
    if policy.augment is not None and policy.views is None and phase.epochs:
        return Ineligible(
            "images change in each pass; `views=4` would keep four fixed views "
            "of each instead, at some cost in accuracy"
        )
    return None


def _cut_of(
    model: keras.Model, source: TrainingData, networks: Networks
) -> Cut | Ineligible:
    cut = find_cut(model)
    if isinstance(cut, Ineligible):
        return cut
    shape = source.indexed["train"].examples.shape
    if has_children(model):
        (given,) = output_shapes(model.get_layer("preprocessing"), [shape])
        if None in given:
            return Ineligible(
                "texts of a batch are as long as its longest one "
                "(`bucketing=True`)"
            )
    return networks.why_not(model, cut, shape) or cut


def _measure_size(
    model: keras.Model,
    source: TrainingData,
    phase: Phase,
    cut: Cut,
    policy: CachePolicy,
) -> Candidate:
    below = network_to(model, [cut])
    shape = source.indexed["train"].examples.shape
    shapes = output_shapes(below, [shape])
    return Candidate(
        cut=cut,
        epochs=phase.epochs,
        passes=phase.epochs + phase.exact_probe,
        train=len(source.indexed["train"].examples),
        held_out=sum(
            len(part.examples)
            for name, part in source.indexed.items()
            if name != "train"
        ),
        views=policy.views or 1,
        row_bytes=sum(4 * int(np.prod(s)) for s in shapes),
        frozen_flops=count_flops(below, [shape]),
        flops=count_flops(model, [shape]),
    )


def _choose_store(
    candidates: Sequence[Candidate], policy: CachePolicy, team: ProcessGroup
) -> FeatureStore | None:
    """The store; `None` where several processes would need a folder."""
    if not candidates:
        return None
    if isinstance(policy.store, FeatureStore):
        return policy.store
    choice: Choice = policy.store
    if choice.store is None:
        total = sum({c.cut: c.num_bytes for c in candidates}.values())
        small = all(
            content == b"1"
            for content in team.gather(
                b"%d" % (total <= free_memory() // _PART_OF_MEMORY)
            )
        )
        if not small and team.size > 1:
            return None
        choice.store = FeatureStore(None if small else default_directory())
    return choice.store


def _drop_what_does_not_fit(
    draft: _Draft, store: FeatureStore | None, team: ProcessGroup
) -> None:
    """Keeps the cuts that save most for their bytes."""
    if store is None:
        return
    candidates = draft.candidates
    room = min(int(limit) for limit in team.gather(b"%d" % store.limit))
    taken: set[Cut] = set()
    for place in sorted(candidates, key=lambda p: -candidates[p].worth):
        candidate = candidates[place]
        if candidate.cut in taken:
            continue
        if candidate.num_bytes > room:
            draft.drop(
                place,
                f"its {format_bytes(candidate.num_bytes)} are more than the "
                f"{format_bytes(room)} that the store on {tier_of(store)} may "
                "still hold",
            )
            continue
        taken.add(candidate.cut)
        room -= candidate.num_bytes


def _check_views(
    phases: Sequence[Phase],
    candidates: Mapping[int, Candidate],
    reasons: Mapping[int, str],
) -> None:
    """Raises where fixed views would not be what is trained on."""
    places = [p for p, phase in enumerate(phases) if phase.epochs]
    if any(place in candidates for place in places):
        return
    why = reasons.get(places[0], "") if places else "nothing is trained"
    raise ValueError(
        "`views` must be None where no activations can be kept: images then "
        f"change in each pass. Received: views, but {why}. Choose a smaller "
        "`depth`, or leave `views` out."
    )


def tier_of(store: FeatureStore) -> str:
    """Returns `"memory"` or `"disk"`."""
    return "memory" if store.directory is None else "disk"


def _measure(
    model: keras.Model,
    source: TrainingData,
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
    # Those that are computed together, so that nothing is compiled twice.
    some = together(cuts[first:])
    shape = source.indexed["train"].examples.shape
    forward = networks.compiled(model, some, shape)
    look = networks.look(model, shape)
    np.asarray(forward(look)[0])
    # Read, since a GPU says that it is done before it is.
    seconds = time_of(lambda: np.asarray(forward(look)[0]), least=0.1)
    flops = max(c.frozen_flops for c in candidates.values() if c.cut in some)
    folder = None if store is None else store.directory
    return Rates(
        flops * len(look) / seconds,
        measure_memory() if folder is None else measure_disk(folder),
    )


def _measure_for_all(measure: Callable[[], Rates], team: ProcessGroup) -> Rates:
    """What the first process measured, so that all decide alike."""
    found = team.share(lambda: {"rates": np.array(measure())}) or {}
    return Rates(*found["rates"].tolist())


def _keep(
    phase: Phase,
    candidate: Candidate,
    store: FeatureStore | None,
    rates: Rates | None,
    policy: CachePolicy,
) -> PlannedPhase:
    seconds = direct = None
    if rates is not None:
        seconds, direct = candidate.seconds(rates, policy.batch_size)
    share = candidate.frozen_flops / candidate.flops
    why = (
        f"{share:.0%} of the operations are up to {candidate.cut.name}, where "
        f"nothing changes over {candidate.passes} passes"
    )
    if policy.augment is not None and policy.views and phase.epochs:
        why += (
            f"; {candidate.views} fixed views of each image stand for new ones "
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


def _recompute(phase: Phase, reason: str) -> PlannedPhase:
    return PlannedPhase(
        name=phase.name,
        passes=phase.epochs + phase.exact_probe,
        why=f"nothing is kept, since {reason}.",
    )

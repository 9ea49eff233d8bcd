"""Computes the frozen prefix of each phase once, or reads it from a store."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from keras_transfer.caching.cuts import (
    Cut,
    cut_below,
    halves,
    network_to,
    width,
)
from keras_transfer.caching.eligibility import CachePolicy
from keras_transfer.caching.feeds import Computed, feed_entries, feed_inputs
from keras_transfer.caching.filling import fill, open_entries
from keras_transfer.caching.networks import Networks, together
from keras_transfer.caching.phase_data import CachedPhase
from keras_transfer.caching.plan import Plan
from keras_transfer.caching.store.entry import Entry
from keras_transfer.caching.store.reader import Reader
from keras_transfer.caching.store.store import FeatureStore
from keras_transfer.caching.views import View, make_views
from keras_transfer.data.adapters.training_data import TrainingData
from keras_transfer.data.examples import Examples
from keras_transfer.distribute import ProcessGroup
from keras_transfer.structure.model_parts import parts_of

# Earlier cuts that are looked up in the store, to start computing from.
_MAX_EARLIER_CUTS = 8


_EXAMPLES_PER_BATCH = 32


class Prefixes:
    """Computes and reads the activations of a plan.

    Args:
        model: The model.
        data: The data.
        plan: Plan of the run.
        store: Store of the activations.
        policy: Seed, augmentation and views.
        networks: Compiled networks.
        group: Processes that share the work. Defaults to `None`: this one.
    """

    def __init__(
        self,
        model: keras.Model,
        data: TrainingData,
        plan: Plan,
        store: FeatureStore,
        policy: CachePolicy,
        networks: Networks,
        group: ProcessGroup | None = None,
    ) -> None:
        self._model = model
        self._data = data
        self._plan = plan
        self._store = store
        self._policy = policy
        self._networks = networks
        self._group = group
        self._views = make_views(policy.views or 1, policy.augment, policy.seed)

    @property
    def where(self) -> str:
        """Place of the activations, in words."""
        folder = self._store.directory
        return "in memory" if folder is None else f"in {folder}"

    def open(self, place: int) -> CachedPhase | None:
        """Returns the activations of a phase, computing what is missing.

        Activations of later phases that nothing changes until then are
        computed in the same pass.

        Args:
            place: Index of the phase.

        Returns:
            A `CachedPhase`, or `None` where variables above the cut are in
            another order than in the model: an optimizer that continues in
            the next phase relies on that order.

        Raises:
            OSError: If the store cannot be written to, or has no room.
        """
        cut = self._plan.phases[place].cut
        if cut is None:
            return None
        suffix = halves(self._model, cut)[1]
        above = [id(v) for v in suffix.trainable_variables]
        if above != [id(v) for v in self._model.trainable_variables]:
            return None
        return CachedPhase(suffix, self.fill(place), self._policy)

    def fill(self, place: int) -> dict[str, Reader]:
        """Computes the activations of a phase, and those of the same pass.

        Args:
            place: Index of the phase.

        Returns:
            Readers of the phase: `"train"`, perhaps `"validation"`, and the
            data sets carried along in each batch.

        Raises:
            OSError: If the store cannot be written to, or has no room.
        """
        cuts = together([phase.cut for phase in self._plan.phases[place:]])
        networks = [network_to(self._model, [c]) for c in cuts]
        readers = {}
        passes = 0
        for name, indexed in self._data.indexed.items():
            views = self._views if name == "train" else self._views[:1]
            entries = open_entries(
                self._store,
                networks,
                indexed.examples,
                views,
                engine=self._networks.engine,
            )
            feed = functools.partial(self._feed, cuts, indexed.examples, views)
            passes += fill(
                self._store,
                entries,
                indexed.examples.digests,
                feed,
                f"{name} image",
                int(self._policy.verbose > 1),
                self._group,
            ).passes
            readers[name] = Reader(
                # The cut of the phase comes first.
                [row[0] for row in entries],
                indexed.examples.digests,
                indexed.make_labels(),
            )
        before = self._plan.extracted.get(place, 0)
        self._plan.extracted[place] = before + passes
        return readers

    def _feed(
        self,
        cuts: Sequence[Cut],
        examples: Examples,
        views: Sequence[View],
        missing: np.ndarray,
    ) -> Iterator[Computed]:
        sizes = [width(self._model, cut) for cut in cuts]
        start = self._nearest(cuts, examples, views, missing)
        if start is not None:
            stored, entries = start
            network = network_to(self._model, cuts, start=stored)
            feed = feed_entries(
                entries, examples.digests, network, sizes, _EXAMPLES_PER_BATCH
            )
        else:
            compute = self._networks.compiled(self._model, cuts, examples.shape)
            feed = feed_inputs(
                examples, compute, sizes, views, _EXAMPLES_PER_BATCH
            )
        return feed(missing)

    def _nearest(
        self,
        cuts: Sequence[Cut],
        examples: Examples,
        views: Sequence[View],
        missing: np.ndarray,
    ) -> tuple[Cut, list[Entry]] | None:
        """Finds the nearest cut below `cuts` that has all missing examples."""
        first = max(cut.depth for cut in cuts)
        nearby = {p.cut for p in self._plan.phases if p.cut is not None}
        if self._store.directory is not None:
            # Earlier runs may have cached any cut.
            blocks = parts_of(self._model).blocks
            last = min(first + _MAX_EARLIER_CUTS, len(blocks) - 1)
            nearby |= {
                cut_below(blocks, depth) for depth in range(first, last + 1)
            }
        digests_by_view = [examples.digests[rows] for rows in missing]
        for cut in sorted(nearby - set(cuts)):
            if cut.depth < first or cut.pooled:
                continue
            entries = open_entries(
                self._store,
                [network_to(self._model, [cut])],
                examples,
                views,
                engine=self._networks.engine,
            )
            rows = [row[0] for row in entries]
            if all(
                (entry.find(digests)[:, 0] >= 0).all()
                for entry, digests in zip(rows, digests_by_view, strict=True)
            ):
                return cut, rows
        return None

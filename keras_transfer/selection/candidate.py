"""A backbone while it is ranked: features, passes and seconds so far."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.backbones import Backbone, load_backbone
from keras_transfer.caching.cost import count_flops
from keras_transfer.caching.feeds import feed_inputs
from keras_transfer.caching.filling import fill, open_entries
from keras_transfer.caching.store import FeatureStore
from keras_transfer.caching.views import make_views
from keras_transfer.data.examples import Examples
from keras_transfer.features.backbone_outputs import cut_at, load


class Candidate:
    """A backbone that is ranked, and its features so far.

    Args:
        backbone: Name, file or `Backbone`.
        shape: Height, width and channels of the images.
        store: Store of the features.
        batch_size: Images in a batch.
    """

    def __init__(
        self,
        backbone: str | Path | Backbone,
        shape: tuple[int, int, int],
        store: FeatureStore,
        batch_size: int,
    ) -> None:
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(backbone, input_shape=shape)
        self.name = backbone.name
        self.spec = backbone.spec
        self._classifier = backbone.classifier
        self.parameters = backbone.model.count_params()
        loaded = load(backbone, shape)
        self._outputs = cut_at(loaded, None, "avg", shape, "tensorflow", 0)
        (network,) = self._outputs.targets
        self.flops = count_flops(network, [shape])
        self._store = store
        self._batch_shape = (batch_size, *shape)
        self._compiled = False
        self.features = np.empty((0, 0), np.float32)
        self.passes = 0
        self.seconds = 0.0

    def extend(self, examples: Examples) -> None:
        """Adds the features of more images, computed or from the store."""
        views = make_views(1)
        entries = open_entries(
            self._store, self._outputs.targets, examples, views,
            engine=self._outputs.engine,
        )  # fmt: skip
        (entry,) = entries[0]
        missing = (entry.find(examples.digests)[:, 0] < 0).any()
        if missing and not self._compiled:
            # Compiles, so that the clock measures computation alone.
            self._outputs.compute(np.zeros(self._batch_shape, np.float32))
            self._compiled = True
        batch_size = self._batch_shape[0]
        feed = feed_inputs(examples, self._timed, [1], views, batch_size)
        tally = fill(self._store, entries, examples.digests, feed)
        self.passes += tally.passes
        (features,) = entry.gather(entry.find(examples.digests))
        features = features.astype(np.float32, copy=False)
        known = [self.features] if len(self.features) else []
        self.features = np.concatenate([*known, features])

    def _timed(self, images: Any) -> Any:
        """Computes outputs; decoding, shared by all, is not timed."""
        started = time.monotonic()
        outputs = self._outputs.compute(images)
        self.seconds += time.monotonic() - started
        return outputs

    @property
    def has_classifier(self) -> bool:
        """`True` if the backbone comes with a classifier of its own."""
        return self._classifier is not None

    def source_probabilities(self) -> np.ndarray | None:
        """Returns its classifier's probabilities `(n, source classes)`."""
        if self._classifier is None:
            return None
        probabilities: np.ndarray = self._classifier.predict(
            self.features, batch_size=1024, verbose=0
        )
        return probabilities

    @property
    def images_per_second(self) -> float:
        """Measured speed; 0 if nothing was computed."""
        return self.passes / self.seconds if self.seconds else 0.0

"""The feature store: activations by digest, in memory or on disk."""

from keras_transfer.caching.store.store import (
    FeatureStore,
    default_directory,
    open_store,
)

__all__ = [
    "FeatureStore",
    "default_directory",
    "open_store",
]

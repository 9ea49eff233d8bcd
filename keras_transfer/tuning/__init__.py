"""Search over learning rate, lambda and depth; see `search`."""

from keras_transfer.tuning.result import SearchResult
from keras_transfer.tuning.searching import search
from keras_transfer.tuning.space import SearchSpace

__all__ = ["SearchResult", "SearchSpace", "search"]

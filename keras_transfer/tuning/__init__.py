"""Search over learning rate, lambda and depth; see `search`."""

from keras_transfer.tuning.hyperparameter_search import search
from keras_transfer.tuning.search_result import SearchResult
from keras_transfer.tuning.space import SearchSpace

__all__ = ["SearchResult", "SearchSpace", "search"]

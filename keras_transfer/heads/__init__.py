"""Heads: pooling and dense layers on a backbone."""

from keras_transfer.heads.head_building import POOLINGS, build_head

__all__ = [
    "POOLINGS",
    "build_head",
]

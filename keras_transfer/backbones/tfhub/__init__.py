"""Backbones of TensorFlow Hub: SavedModels."""

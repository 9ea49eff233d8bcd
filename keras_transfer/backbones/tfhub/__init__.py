"""Backbones from TensorFlow Hub: SavedModels."""

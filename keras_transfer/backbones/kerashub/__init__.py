"""Backbones from KerasHub."""

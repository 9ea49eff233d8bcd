"""Backbones of KerasHub."""

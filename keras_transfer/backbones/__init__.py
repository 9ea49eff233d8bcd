"""Pretrained backbones: one file and one table per source."""

from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.loading import list_backbones, load_backbone
from keras_transfer.backbones.spec import BackboneSpec
from keras_transfer.backbones.text import load_text_backbone

__all__ = [
    "Backbone",
    "BackboneSpec",
    "list_backbones",
    "load_backbone",
    "load_text_backbone",
]

"""`Backbone`: a pretrained network and its preprocessing."""

from __future__ import annotations

import dataclasses

import keras

from keras_transfer.backbones.kerashub import loading as kerashub
from keras_transfer.backbones.spec import BackboneSpec
from keras_transfer.structure import graph


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A pretrained feature extractor and its preprocessing.

    It is a value: building a model from it copies its weights, so that no two
    models share any.

    Attributes:
        spec: Facts about the backbone, a `BackboneSpec`.
        preprocessing: Model from `(batch, height, width, channels)` pixels in
            `[0, 255]`, or from string `(batch,)` texts, to the inputs of
            `model`. It has no weights.
        model: Model from there to features, `(batch, h, w, num_features)`,
            `(batch, positions, num_features)` of a transformer, or
            `(batch, num_features)`.
        classifier: Model from averages of the features,
            `(batch, num_features)`, to class probabilities: the softmax layer
            of your own model. `None` if there is none, or if it needs more
            than averages. Defaults to `None`.

    Example:

    >>> backbone = load_backbone("ResNet20")
    >>> features = backbone.model(backbone.preprocessing(images))
    """

    spec: BackboneSpec
    preprocessing: keras.Model
    model: keras.Model
    classifier: keras.Model | None = None

    @property
    def name(self) -> str:
        """The name of the architecture."""
        return self.spec.name

    @property
    def input_shape(self) -> tuple[int | None, int | None, int]:
        """`(height, width, channels)` of images, `None` where free; or `()`."""
        return tuple(self.preprocessing.input_shape[1:])

    @property
    def num_features(self) -> int:
        """Number of channels of the features."""
        return int(self.model.output_shape[-1])

    def copy(self) -> Backbone:
        """Returns a copy, which shares no weights."""
        model = kerashub.clone(self.model)
        graph.set_weights(model, self.model.get_weights())
        preprocessing = self.preprocessing
        if not graph.takes_texts(preprocessing):
            # Shared, since cloning a tokenizer loses its vocabulary.
            preprocessing = keras.models.clone_model(preprocessing)
        return dataclasses.replace(
            self, model=model, preprocessing=preprocessing
        )

    def __repr__(self) -> str:
        return (
            f"Backbone({self.name!r}, input_shape={self.input_shape}, "
            f"num_features={self.num_features}, "
            f"parameters={self.model.count_params():,})"
        )

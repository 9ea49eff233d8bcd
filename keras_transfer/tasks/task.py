"""Which loss, metrics and measure of success fit a model and its labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_transfer.structure.outputs import output_activation


class Objective(NamedTuple):
    """What is minimised and what is looked at.

    Attributes:
        loss: A Keras loss, or a function.
        kind: `"classification"`, `"multi-label"` or `"regression"`.
        from_logits: Whether the outputs are logits.
        sparse: Whether labels are class indices.
    """

    loss: keras.losses.Loss | Callable[..., Any]
    kind: str
    from_logits: bool
    sparse: bool

    def metrics(self) -> list[keras.metrics.Metric]:
        """Makes the metrics for one `compile`."""
        if self.kind == "regression":
            return [keras.metrics.MeanAbsoluteError(name="mae")]
        if self.kind == "multi-label":
            threshold = 0.0 if self.from_logits else 0.5
            return [
                keras.metrics.BinaryAccuracy(
                    name="accuracy", threshold=threshold
                )
            ]
        if self.sparse:
            return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        return [keras.metrics.CategoricalAccuracy(name="accuracy")]


def is_binary(model: keras.Model) -> bool:
    """Whether the model has one sigmoid."""
    units = model.output_shape[-1] if len(model.outputs) == 1 else 0
    return units == 1 and output_activation(model) == "sigmoid"


def make_objective(
    model: keras.Model,
    labels: str,
    *,
    loss: str | keras.losses.Loss | Callable[..., Any] | None = None,
    label_smoothing: float = 0.0,
) -> Objective:
    """Chooses loss and metrics by the output activation and the labels.

    Softmax: categorical cross-entropy; sigmoid: binary cross-entropy; linear:
    cross-entropy on logits for classes, the mean squared error for numbers.

    Args:
        model: The model.
        labels: As `Source.labels`.
        loss: A loss that replaces the chosen one. Defaults to `None`.
        label_smoothing: Fraction in `[0, 1)` of each label that is spread over
            all classes. Defaults to `0.0`.

    Returns:
        An `Objective`.

    Raises:
        ValueError: If they do not fit each other.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            "`label_smoothing` must be a fraction in [0, 1). Received: "
            f"label_smoothing={label_smoothing!r}"
        )
    if len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one output. Received: model "
            f"{model.name!r} with {len(model.outputs)}."
        )
    activation = output_activation(model)
    from_logits = activation not in ("softmax", "sigmoid")
    units = model.output_shape[-1]
    says_numbers = model.name.endswith("_regressor") or units == 1
    if from_logits and says_numbers and loss is None:
        # One linear output is a number whatever the values of the labels.
        labels = "numbers"
    sparse = labels == "int"
    if activation == "sigmoid" or labels == "multi-label":
        kind = "multi-label"
        if activation == "softmax":
            raise ValueError(
                "`model` must end in a sigmoid for several labels an example: "
                "the classes of a softmax exclude each other. Received: a "
                "softmax and rows with several labels or none."
            )
    elif labels == "numbers":
        kind = "regression"
        if activation == "softmax":
            raise ValueError(
                "`data` must hold classes for a model that ends in a softmax: "
                "integers or one-hot rows. Received: other numbers."
            )
    else:
        kind = "classification"
    from_logits = from_logits and kind != "regression"
    if loss is None:
        made = _loss(kind, sparse, from_logits, label_smoothing)
    elif label_smoothing:
        raise ValueError(
            "`label_smoothing` must be left out where `loss` is given: set it "
            f"there. Received: label_smoothing={label_smoothing}"
        )
    else:
        made = keras.losses.get(loss)
        if isinstance(made, keras.losses.Loss):
            config = made.get_config()
            from_logits = config.get("from_logits", from_logits)
        name = getattr(made, "__name__", type(made).__name__)
        if "sparse" in name.lower() and labels == "one-hot":
            raise ValueError(
                "`loss` must fit labels that are one-hot rows. Received: "
                f"loss={loss!r:.100}. Leave it out, or use "
                '"categorical_crossentropy".'
            )
    return Objective(made, kind, from_logits, sparse)


def _loss(
    kind: str, sparse: bool, from_logits: bool, label_smoothing: float
) -> keras.losses.Loss:
    if kind == "regression":
        if label_smoothing:
            raise ValueError(
                "`label_smoothing` must be 0 for regression. Received: "
                f"label_smoothing={label_smoothing}"
            )
        return keras.losses.MeanSquaredError()
    if kind == "multi-label":
        return keras.losses.BinaryCrossentropy(
            from_logits=from_logits, label_smoothing=label_smoothing
        )
    if not sparse:
        return keras.losses.CategoricalCrossentropy(
            from_logits=from_logits, label_smoothing=label_smoothing
        )
    if label_smoothing:
        raise ValueError(
            "`label_smoothing` needs one-hot labels. Received: "
            f"label_smoothing={label_smoothing} and integers. Use "
            "`keras.utils.to_categorical(labels, num_classes)`."
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)

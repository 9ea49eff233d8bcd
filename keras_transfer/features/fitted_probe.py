"""`FittedProbe`: result of `fit_probe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_transfer.caching.cuts import Cut, network_to
from keras_transfer.caching.fingerprints import digest_network
from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.features.features import BlockColumns, FeatureSplit
from keras_transfer.probes import PathRow
from keras_transfer.structure.blocks import find_blocks
from keras_transfer.structure.class_names import find_class_names
from keras_transfer.structure.model_parts import has_children, parts_of

# Name of each kind of probe, and name of its strength.
_NAMES = {
    "logistic": ("logistic regression", "lambda"),
    "ridge": ("ridge regression", "lambda"),
    "nearest-mean": ("nearest class mean", "variance"),
    "knn": ("nearest neighbours", "k"),
    "head2toe": ("Head2Toe", "lambda"),
}

_ROWS_PER_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FittedProbe:
    """A probe on frozen features; `str(probe)` is the table of its path.

    Attributes:
        kind: Kind of the probe: `"logistic"`, `"ridge"`, `"knn"`,
            `"nearest-mean"` or `"head2toe"`.
        problem: Kind of the labels: `"classification"`, `"multi-label"` or
            `"regression"`.
        strength: The chosen lambda, number of neighbours, or variance around
            the means.
        rows: The table that the strength was chosen from: a `PathRow`
            (strength, loss, accuracy, kept) per strength, on held-out examples.
        chosen_by: Description of the held-out examples.
        at_edge: Whether the chosen strength is the largest or smallest one
            tried, so that one beyond it may be better.
        class_names: Names of the classes, or `None`.
        parts: The columns of each block, first to last.
        width: Number of columns.
        kernel: float32 `(features, outputs)` for unscaled features, or `None`
            if the probe is not a linear map.
        bias: float32 `(outputs,)`, or `None`.
        kept: Indices of the columns that a Head2Toe probe uses, or `None`.

    Example:

    >>> data = load_images((arrays, labels), split=(0.8, 0.0, 0.2))
    >>> features = extract_features(backbone, data, verbose=0)
    >>> probe = fit_probe(features)
    >>> probe.predict(features.test).shape
    (6, 3)
    >>> model = build_classifier(backbone, data=data)
    >>> probe.write_to(model)
    """

    kind: str
    problem: str
    strength: float
    rows: tuple[PathRow, ...]
    chosen_by: str
    at_edge: bool
    class_names: tuple[str, ...] | None
    parts: tuple[BlockColumns, ...]
    width: int
    kernel: np.ndarray | None
    bias: np.ndarray | None
    kept: np.ndarray | None
    _num_outputs: int
    _outputs: Callable[[np.ndarray], np.ndarray]

    def predict(self, features: FeatureSplit | np.ndarray) -> np.ndarray:
        """Returns the outputs for features.

        Args:
            features: A `FeatureSplit`, such as `features.test`, or an array
                `(n, features)`.

        Returns:
            float32 `(n, outputs)`: probabilities; for a ridge regression
            numbers, which are positive for a predicted class.

        Raises:
            ValueError: If the features are not of the backbones and blocks that
                the probe was fitted on.
        """
        if isinstance(features, FeatureSplit):
            self._check_parts(features)
            chunks = list(features.chunks(_ROWS_PER_CHUNK))
        else:
            array = np.asarray(features)
            self._check_width(array.shape)
            chunks = [
                array[start : start + _ROWS_PER_CHUNK]
                for start in range(0, max(len(array), 1), _ROWS_PER_CHUNK)
            ]
        outputs = [self._outputs(chunk.astype(np.float64)) for chunk in chunks]
        if not outputs:
            return np.empty((0, self._num_outputs), np.float32)
        return np.concatenate(outputs).astype(np.float32)

    def evaluate(self, split: FeatureSplit) -> Evaluation:
        """Measures the probe on labelled features.

        The scores of a ridge regression on classes are treated as logits: its
        accuracy is meaningful, its cross-entropy is not.

        Args:
            split: A `FeatureSplit` with labels, such as `features.test`.

        Returns:
            An `Evaluation`, as from `Run.evaluate`.

        Raises:
            ValueError: If there are no examples or labels, or features or
                labels do not match those that the probe was fitted on.
            TypeError: If `split` is not a `FeatureSplit`.
        """
        if not isinstance(split, FeatureSplit):
            raise TypeError(
                "`split` must be a FeatureSplit, such as `features.test`. "
                f"Received: {type(split).__name__}"
            )
        if split.labels is None or not len(split):
            missing = "no labels" if len(split) else "no examples"
            raise ValueError(
                f"`split` must hold labelled examples. Received: {missing}."
            )
        labels = split.labels
        if self.problem == "regression" and labels.ndim == 1:
            labels = labels[:, None]
        label_shape = (
            () if self.problem == "classification" else (self._num_outputs,)
        )
        highest = labels.max() if self.problem == "classification" else 0
        if labels.shape[1:] != label_shape or highest >= self._num_outputs:
            raise ValueError(
                "`split` must be of the data set that the probe was fitted on "
                f"({self.problem}, {self._num_outputs} outputs). Received: "
                f"labels of shape {labels.shape}, up to {labels.max():g}."
            )
        return evaluate_outputs(
            self.predict(split),
            labels,
            ids=split.ids,
            class_names=self.class_names,
            kind=self.problem,
            from_logits=self.kind == "ridge" and self.problem != "regression",
        )

    def write_to(self, model: keras.Model) -> None:
        """Writes the probe into the head of a model.

        Afterwards `model.predict(images)` equals `predict` on the features of
        the images, up to rounding errors; with a linear output, the logits. The
        model must hold the backbone that computed the features, with the same
        weights and pooling.

        Args:
            model: A model made by `build_classifier` or `build_regressor`,
                whose head is pooling and one dense layer.

        Raises:
            ValueError: If the probe is not a linear map, or does not fit the
                model: other classes, another backbone, block or activation.
            TypeError: If `model` is not a `keras.Model`.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`model` must be a keras.Model made by `build_classifier`. "
                f"Received: {type(model).__name__}"
            )
        if self.kernel is None or self.bias is None:
            raise ValueError(
                '`kind` must be "logistic", "nearest-mean" or "ridge" for a '
                "probe that is written into a model, because the others are "
                "not linear maps of the features. Received: "
                f'kind="{self.kind}".'
            )
        if len(self.parts) > 1:
            raise ValueError(
                "`features` must be of one block of one backbone for a probe "
                f"that is written into a model. Received: {len(self.parts)} "
                f"parts, such as {self.parts[0].backbone} "
                f"{self.parts[0].block}. Extract only the features of the "
                "model's backbone."
            )
        layer = _dense_of(model)
        why_not = self._why_not(model, layer)
        if why_not:
            raise ValueError(
                "`model` must take the features and give the outputs of the "
                f"probe. Received: {why_not}."
            )
        kernel, bias = self.kernel, self.bias
        if layer.units < self._num_outputs:
            # softmax(s)[1] = sigmoid(s_1 - s_0)
            kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)

    def summary(self) -> str:
        """Returns a sentence about the probe and the choice of its strength."""
        name, strength_name = _NAMES[self.kind]
        size = f"{self.width} features"
        if self.kept is not None:
            size = f"{len(self.kept)} of {size}"
        text = (
            f"{name}, {size}, {self._num_outputs} outputs; {strength_name} "
            f"{self.strength:.4g} by {self.chosen_by}"
        )
        if self.at_edge:
            text += (
                ", the edge of the values tried: pass more values beyond it as "
                "`strengths`"
            )
        return text

    def __str__(self) -> str:
        strength_name = _NAMES[self.kind][1]
        lines = [self.summary()]
        if self.rows:
            lines.append(f"  {strength_name:>10}  {'loss':>9}  {'accuracy':>8}")
        chosen = min(
            (row for row in self.rows if row.strength == self.strength),
            key=lambda row: row.loss,
            default=None,
        )
        for row in self.rows:
            line = f"  {row.strength:>10.4g}  {row.loss:>9.4f}"
            if row.accuracy is not None:
                line += f"  {row.accuracy:>8.4f}"
            if row.kept is not None:
                line += f"  {row.kept} columns"
            lines.append(line + ("  chosen" if row is chosen else ""))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<FittedProbe: {self.summary()}>"

    def _check_parts(self, split: FeatureSplit) -> None:
        fitted = [(part.backbone, part.block) for part in self.parts]
        received = [(part.backbone, part.block) for part in split.parts]
        if fitted and received and fitted != received:
            raise ValueError(
                "`features` must be of the backbones and blocks that the probe "
                f"was fitted on, {_listed(fitted)}. Received: "
                f"{_listed(received)}."
            )
        for own, part in zip(self.parts, split.parts, strict=False):
            if own.network != part.network:
                raise ValueError(
                    f"`features` must be of the same {part.backbone} that the "
                    "probe was fitted on. Received: features of other weights, "
                    "image size, sequence length or pooling."
                )
        self._check_width((len(split), *split.shape))

    def _check_width(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != self.width:
            raise ValueError(
                f"`features` must have shape (n, {self.width}), like the "
                f"features that the probe was fitted on. Received: shape "
                f"{shape}. Are they of another backbone, or not pooled?"
            )

    def _why_not(self, model: keras.Model, layer: keras.layers.Dense) -> str:
        """Returns the reason why the probe does not fit a model, or `""`."""
        blocks = find_blocks(model.get_layer("backbone"))
        for part in self.parts:
            name, suffixes = model.name, ("_classifier", "_regressor")
            backbone_name = part.backbone.lower().replace("/", "_")
            built = name.endswith(suffixes)
            if built and name.rpartition("_")[0] != backbone_name:
                return f"features of {part.backbone}, a model named {name!r}"
            if part.block != blocks[-1].name:
                return (
                    f"features of the block {part.block!r}, a head on top of "
                    f"{blocks[-1].name!r}"
                )
        if layer.kernel.shape[0] != self.width:
            return (
                f"a probe on {self.width} features, a head on "
                f"{layer.kernel.shape[0]}"
            )
        if not self._has_same_network(model, layer):
            return (
                "features of a backbone with other weights, image size, "
                "sequence length or pooling than the model's"
            )
        names = find_class_names(model.get_config())
        if names and self.class_names and names != self.class_names:
            return (
                f"a probe for the classes {_listed(self.class_names)}, a model "
                f"for {_listed(names)}"
            )
        return self._why_not_output(layer)

    def _has_same_network(
        self, model: keras.Model, layer: keras.layers.Dense
    ) -> bool:
        """Tells whether the model computes the features of the probe.

        Features of an unknown network are accepted.
        """
        cut = Cut(0, parts_of(model).pooling is not None, f"below {layer.name}")
        digest = digest_network(network_to(model, [cut]))
        for part in self.parts:
            network, _, size = part.network.partition(" ")
            shape = "x".join(map(str, model.input_shape[1:]))
            if network and (
                network != digest or ("None" not in shape and size != shape)
            ):
                return False
        return True

    def _why_not_output(self, layer: keras.layers.Dense) -> str:
        """Returns the reason why the probe does not fit an output, or `""`."""
        activation = keras.activations.serialize(layer.activation)
        fitting = {"linear"}
        units = self._num_outputs
        if self.kind != "ridge" and self.problem == "classification":
            fitting = {"linear", "softmax"}
            if layer.units == 1 and units == 2:
                fitting, units = {"sigmoid"}, 1
        elif self.kind != "ridge":
            fitting = {"linear", "sigmoid"}
        if layer.units != units:
            return f"a probe of {units} outputs, a model of {layer.units}"
        if activation in fitting:
            return ""
        outputs = "numbers that are neither probabilities nor logits"
        if self.kind != "ridge":
            outputs = "logits of " + (
                "a softmax"
                if self.problem == "classification"
                else "a sigmoid for each output"
            )
        return (
            f"a model that ends in {activation!r}, a {self.kind} probe, which "
            f"gives {outputs}; build the model with "
            f'`activation="{sorted(fitting)[-1]}"`'
        )


def _dense_of(model: keras.Model) -> keras.layers.Dense:
    """Returns the dense layer of a head; raises for any other head."""
    received = f"model {model.name!r}, which has no head"
    if has_children(model):
        layers = model.get_layer("head").layers
        weighted = [layer for layer in layers if layer.weights]
        only = weighted[0] if len(weighted) == 1 else None
        if isinstance(only, keras.layers.Dense) and only.use_bias:
            return only
        received = "a head with " + ", ".join(x.name for x in weighted)
    raise ValueError(
        "`model` must be made by `build_classifier` or `build_regressor`, with "
        "a head of pooling and one dense layer, which the probe is written "
        f"into. Received: {received}."
    )


def _listed(names: tuple | list) -> str:
    words = [" ".join(n) if isinstance(n, tuple) else str(n) for n in names]
    more = ", ..." if len(words) > 5 else ""
    return ", ".join(words[:5]) + more

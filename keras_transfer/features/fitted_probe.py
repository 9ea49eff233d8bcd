"""What `fit_probe` gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_transfer.caching.cuts import Cut, network_to
from keras_transfer.caching.fingerprints import digest_network
from keras_transfer.evaluation.evaluation import Evaluation, evaluate_outputs
from keras_transfer.features.features import FeatureSplit, Part
from keras_transfer.probes import PathRow
from keras_transfer.structure.blocks import find_blocks, has_children
from keras_transfer.structure.class_names import find_class_names
from keras_transfer.structure.depth import pooling_of

_WORDS = {
    "logistic": ("logistic regression", "lambda"),
    "ridge": ("ridge regression", "lambda"),
    "nearest-mean": ("nearest class mean", "variance"),
    "knn": ("nearest neighbours", "k"),
    "head2toe": ("Head2Toe", "lambda"),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FittedProbe:
    """A probe on frozen features; `str()` of it is the table of its path.

    Attributes:
        kind: `"logistic"`, `"ridge"`, `"knn"`, `"nearest-mean"` or
            `"head2toe"`.
        problem: `"classification"`, `"multi-label"` or `"regression"`.
        strength: What was chosen: lambda, the number of neighbours, or the
            variance around the means.
        rows: The table it was chosen by: a `PathRow` (strength, loss,
            accuracy, kept) for each strength, on what was held out.
        chosen_by: What was held out, in words.
        at_edge: Whether the choice is the largest or smallest strength tried,
            so that one beyond may be better.
        class_names: Names of the classes, or `None`.
        parts: What the columns of the features are.
        width: Number of columns.
        kernel: float32 `(features, outputs)` for features as they are, or
            `None` where the probe is no linear map.
        bias: float32 `(outputs,)`, or `None`.
        kept: Columns that a Head2Toe probe uses, or `None`.

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
    parts: tuple[Part, ...]
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
            float32 `(n, outputs)`: probabilities; of a ridge regression
            numbers, which for classes are nearer to 1 than to -1 where it
            says yes.

        Raises:
            ValueError: If they are not of the backbones and blocks that the
                probe was fitted on.
        """
        if isinstance(features, FeatureSplit):
            self._check_parts(features)
            chunks = list(features.chunks())
        else:
            array = np.asarray(features)
            self._check_width(array.shape)
            chunks = [
                array[i : i + 1024] for i in range(0, max(len(array), 1), 1024)
            ]
        found = [self._outputs(chunk.astype(np.float64)) for chunk in chunks]
        if not found:
            return np.empty((0, self._num_outputs), np.float32)
        return np.concatenate(found).astype(np.float32)

    def evaluate(self, split: FeatureSplit) -> Evaluation:
        """Measures the probe on labelled features.

        The scores of a ridge regression on classes are taken as logits: its
        accuracy means what it says, its cross-entropy little.

        Args:
            split: A `FeatureSplit` with labels, such as `features.test`.

        Returns:
            An `Evaluation`, as of `Run.evaluate`.

        Raises:
            ValueError: If there are no examples or labels, or the features or
                labels are not of the kind that the probe was fitted on.
            TypeError: If `split` is no `FeatureSplit`.
        """
        if not isinstance(split, FeatureSplit):
            raise TypeError(
                "`split` must be a FeatureSplit, such as `features.test`. "
                f"Received: {type(split).__name__}"
            )
        if split.labels is None or not len(split):
            what = "no labels" if len(split) else "no examples"
            raise ValueError(
                f"`split` must hold labelled examples. Received: {what}."
            )
        labels = split.labels
        if self.problem == "regression" and labels.ndim == 1:
            labels = labels[:, None]
        wanted = (
            () if self.problem == "classification" else (self._num_outputs,)
        )
        highest = labels.max() if self.problem == "classification" else 0
        if labels.shape[1:] != wanted or highest >= self._num_outputs:
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

        After it `model.predict(images)` is what `predict` says of the features
        of the images, to rounding errors; with a linear output the logits of
        that. The model must hold the backbone that the features are of, with
        its weights and the same pooling.

        Args:
            model: A model made by `build_classifier` or `build_regressor`,
                whose head is pooling and one dense layer.

        Raises:
            ValueError: If the probe is no linear map, or not one for this
                model: other classes, another backbone, block or activation.
            TypeError: If `model` is no `keras.Model`.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(
                "`model` must be a keras.Model made by `build_classifier`. "
                f"Received: {type(model).__name__}"
            )
        if self.kernel is None or self.bias is None:
            raise ValueError(
                '`kind` must be "logistic", "nearest-mean" or "ridge" for a '
                "probe that is written into a model: the others are no linear "
                f'map of the features. Received: kind="{self.kind}".'
            )
        if len(self.parts) > 1:
            raise ValueError(
                "`features` must be of one block of one backbone for a probe "
                f"that is written into a model. Received: {len(self.parts)} "
                f"parts, such as {self.parts[0].backbone} "
                f"{self.parts[0].block}. Extract those of the model's backbone "
                "alone."
            )
        layer = _dense_of(model)
        objection = self._objection(model, layer)
        if objection:
            raise ValueError(
                "`model` must take the features and give the outputs of the "
                f"probe. Received: {objection}."
            )
        kernel, bias = self.kernel, self.bias
        if layer.units < self._num_outputs:
            # A sigmoid of the difference is the softmax of two.
            kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)

    def summary(self) -> str:
        """Returns what was fitted and how it was chosen, in a sentence."""
        name, letter = _WORDS[self.kind]
        size = f"{self.width} features"
        if self.kept is not None:
            size = f"{len(self.kept)} of {size}"
        text = (
            f"{name}, {size}, {self._num_outputs} outputs; {letter} "
            f"{self.strength:.4g} by {self.chosen_by}"
        )
        if self.at_edge:
            text += (
                ", the edge of what was tried: give more values beyond it in "
                "`strengths`"
            )
        return text

    def __str__(self) -> str:
        letter = _WORDS[self.kind][1]
        lines = [self.summary()]
        if self.rows:
            lines.append(f"  {letter:>10}  {'loss':>9}  {'accuracy':>8}")
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
        names = [(part.backbone, part.block) for part in self.parts]
        found = [(part.backbone, part.block) for part in split.parts]
        if names and found and names != found:
            raise ValueError(
                "`features` must be of the backbones and blocks that the probe "
                f"was fitted on, {_listed(names)}. Received: {_listed(found)}."
            )
        for mine, part in zip(self.parts, split.parts, strict=False):
            if mine.network != part.network:
                raise ValueError(
                    f"`features` must be of the same {part.backbone} that the "
                    "probe was fitted on. Received: features of other weights, "
                    "image size, sequence length or pooling."
                )
        self._check_width((len(split), *split.shape))

    def _check_width(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != self.width:
            raise ValueError(
                f"`features` must have shape (n, {self.width}), as those that "
                f"the probe was fitted on. Received: shape {shape}. Are they "
                "of another backbone, or not pooled?"
            )

    def _objection(self, model: keras.Model, layer: keras.layers.Dense) -> str:
        """What of the model does not fit the probe, or `""`."""
        blocks = find_blocks(model.get_layer("backbone"))
        for part in self.parts:
            own, suffix = model.name, ("_classifier", "_regressor")
            named = part.backbone.lower().replace("/", "_")
            if own.endswith(suffix) and own.rpartition("_")[0] != named:
                return f"features of {part.backbone}, a model named {own!r}"
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
        if not self._is_of(model, layer):
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
        return self._objection_to_output(layer)

    def _is_of(self, model: keras.Model, layer: keras.layers.Dense) -> bool:
        """Whether the model feeds its output layer with the probe's features.

        As far as it is known what computed them.
        """
        cut = Cut(0, pooling_of(model) is not None, f"below {layer.name}")
        digest = digest_network(network_to(model, [cut]))
        for part in self.parts:
            network, _, size = part.network.partition(" ")
            shape = "x".join(map(str, model.input_shape[1:]))
            if network and (
                network != digest or ("None" not in shape and size != shape)
            ):
                return False
        return True

    def _objection_to_output(self, layer: keras.layers.Dense) -> str:
        activation = keras.activations.serialize(layer.activation)
        fits = {"linear"}
        units = self._num_outputs
        if self.kind != "ridge" and self.problem == "classification":
            fits = {"linear", "softmax"}
            if layer.units == 1 and units == 2:
                fits, units = {"sigmoid"}, 1
        elif self.kind != "ridge":
            fits = {"linear", "sigmoid"}
        if layer.units != units:
            return f"a probe of {units} outputs, a model of {layer.units}"
        if activation in fits:
            return ""
        why = "numbers that are no probabilities or logits"
        if self.kind != "ridge":
            why = "logits of " + (
                "a softmax"
                if self.problem == "classification"
                else "a sigmoid for each output"
            )
        return (
            f"a model that ends in {activation!r}, a {self.kind} probe, which "
            f"gives {why}; build the model with "
            f'`activation="{sorted(fits)[-1]}"`'
        )


def _dense_of(model: keras.Model) -> keras.layers.Dense:
    """The one dense layer of the model's head."""
    what = f"model {model.name!r}, which has no head"
    if has_children(model):
        layers = model.get_layer("head").layers
        weighted = [layer for layer in layers if layer.weights]
        found = weighted[0] if len(weighted) == 1 else None
        if isinstance(found, keras.layers.Dense) and found.use_bias:
            return found
        what = "a head with " + ", ".join(layer.name for layer in weighted)
    raise ValueError(
        "`model` must be made by `build_classifier` or `build_regressor`, with "
        "a head of pooling and one dense layer, which the probe is written "
        f"into. Received: {what}."
    )


def _listed(names: tuple | list) -> str:
    words = [" ".join(n) if isinstance(n, tuple) else str(n) for n in names]
    more = ", ..." if len(words) > 5 else ""
    return ", ".join(words[:5]) + more

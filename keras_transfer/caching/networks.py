"""Networks up to cuts: grouped by pass, compiled once, tested on noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.caching.compiled import FOLDED, Compute, compiled
from keras_transfer.caching.cuts import Cut, network_to, own_layers
from keras_transfer.caching.eligibility import Ineligible
from keras_transfer.caching.fingerprints import digest_network
from keras_transfer.strategies.exact_probe_conditions import has_exact_probe
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import has_children

if TYPE_CHECKING:
    import tensorflow as tf


# Inputs in a trial batch.
_INPUTS_PER_TRIAL = 32


# Rows of a trial batch for custom layers. A number that the constants of a
# graph are unlikely to have as their first dimension.
_ROWS_OF_CUSTOM_LAYERS = 13


# A text for trial batches of text models.
_SENTENCE = "Nobody has read this text before."


def together(cuts: Sequence[Cut | None]) -> list[Cut]:
    """Returns the first cut and later ones that the same pass can compute.

    A later cut can be included as long as no earlier phase trains anything
    below it.

    Args:
        cuts: Cuts of the phases, in order; `None` where everything may train.

    Returns:
        List of distinct cuts.
    """
    shared = []
    deepest = (-1, False)
    for cut in cuts:
        if cut is None:
            break
        if cut.order >= deepest:
            shared.append(cut)
            deepest = cut.order
    return list(dict.fromkeys(shared))


def networks_for(
    model: keras.Model,
    phases: Sequence[Phase],
    strategy: tf.distribute.Strategy | None = None,
) -> Networks:
    """Makes the `Networks` of a run.

    Where a single linear layer trains in every phase, the weights below it are
    folded into constants, for speed. Any other training can amplify the last
    bits of activations, so these are cached exactly as the model computes them.

    Args:
        model: The model.
        phases: The phases.
        strategy: Strategy that computes on several devices. Defaults to `None`.

    Returns:
        A `Networks`.
    """
    on_top = all(p.depth == 0 and not p.reinitialize for p in phases)
    return Networks(on_top and _is_linear(model), strategy)


def _is_linear(model: keras.Model) -> bool:
    """Returns whether the head can train one plain dense layer alone."""
    if not has_exact_probe(model):
        return False
    below = graph.layers_below(model.get_layer("head"))
    layers = [
        layer
        for layer in below
        if layer.weights and not graph.is_functional(layer)
    ]
    return [type(layer) for layer in layers] == [keras.layers.Dense] and (
        len(layers[0].weights) <= 2  # LoRA trains a product.
    )


class Networks:
    """Compiles networks up to cuts, each once.

    Args:
        folded: Whether weights become constants; see `caching.compiled`.
            Defaults to `False`.
        strategy: Strategy that computes on several devices. Defaults to `None`.
    """

    def __init__(
        self,
        folded: bool = False,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._folded = folded
        self._strategy = strategy
        self._functions: dict[
            tuple[tuple[Cut, ...], tuple[int, ...], str], Compute
        ]
        self._functions = {}

    def compiled(
        self, model: keras.Model, cuts: Sequence[Cut], shape: Sequence[int]
    ) -> Compute:
        """Returns the network from inputs to cuts.

        Args:
            model: The model, the same in every call.
            cuts: The cuts.
            shape: Shape of one input.

        Returns:
            Function of inputs, made by `caching.compiled.compiled`.
        """
        network = network_to(model, cuts)
        # Folded weights are fixed: new weights need a new network.
        digest = digest_network(network) if self._folded else ""
        key = (tuple(cuts), tuple(shape), digest)
        if key not in self._functions:
            self._functions[key] = compiled(
                network, shape, self._folded, self._strategy
            )
        return self._functions[key]

    @property
    def engine(self) -> str:
        """Name of the engine that computes them, part of the keys."""
        return FOLDED if self._folded else "tensorflow"

    def look(self, model: keras.Model, shape: Sequence[int]) -> Any:
        """Returns inputs to test a network with, so that no example is used.

        Noise in `[0, 255]` for images, a sentence for texts; zeros for any
        other input of a model, such as token ids.

        Args:
            model: The model.
            shape: Shape of one input.

        Returns:
            float32 array `(32, ...)`, or a tensor of texts `(32,)`.
        """
        if graph.takes_texts(model):
            return keras.ops.convert_to_tensor([_SENTENCE] * _INPUTS_PER_TRIAL)
        if not has_children(model):
            return np.zeros((_INPUTS_PER_TRIAL, *shape), np.float32)
        noise = np.random.default_rng(0).uniform(
            0, 255, (_INPUTS_PER_TRIAL, *shape)
        )
        return noise.astype(np.float32)

    def why_not(
        self, model: keras.Model, cut: Cut, shape: Sequence[int]
    ) -> Ineligible | None:
        """Returns the reason that custom layers rule out a cut, if they do.

        Custom code may behave differently in training, frozen or not, in ways
        that no attribute shows. So it is run in both modes, in training mode
        twice.

        Args:
            model: The model.
            cut: The cut.
            shape: Shape of one input.

        Returns:
            The reason, or `None`.
        """
        network = network_to(model, [cut])
        custom = own_layers(network)
        if not custom:
            return None
        inputs = self.look(model, shape)[:_ROWS_OF_CUSTOM_LAYERS]
        states = [(v, np.array(v)) for v in network.variables]
        try:
            runs = [
                keras.tree.flatten(network(inputs, training=training))
                for training in (False, True, True)
            ]
            changed = any(not np.array_equal(v, old) for v, old in states)
        finally:
            for variable, old in states:
                variable.assign(old)
        if any(len(tensor) != len(inputs) for tensor in runs[0]):
            return Ineligible(
                "the tensors at the cut do not have one row per example"
            )
        equal = all(
            np.allclose(one, other, rtol=1e-5, atol=1e-6)
            for run in runs[1:]
            for one, other in zip(runs[0], run, strict=True)
        )
        if equal and not changed:
            return None
        names = ", ".join(sorted({layer.name for layer in custom})[:3])
        return Ineligible(
            f"a layer below behaves differently in training (one of {names})"
        )

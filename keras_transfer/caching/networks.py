"""Networks up to cuts: which go together, compiled once, tried on noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer.caching.compiled import FOLDED, Compute, compiled
from keras_transfer.caching.cuts import Cut, network_to, own_layers
from keras_transfer.caching.fingerprints import digest_network
from keras_transfer.caching.policy import Ineligible
from keras_transfer.strategies.exact_probe import has_exact_probe
from keras_transfer.strategies.phase import Phase
from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import has_children

if TYPE_CHECKING:
    import tensorflow as tf


# Inputs that a network is tried with.
_LOOK = 32


_ROWS = 13


_SENTENCE = "Nobody has read this text before."


def together(cuts: Sequence[Cut | None]) -> list[Cut]:
    """The first cut and those of later phases that the same pass can give.

    A later one can come along as long as no phase before it trains anything
    below it.

    Args:
        cuts: Those of the phases, in order; `None` where all may train.

    Returns:
        Different cuts.
    """
    found = []
    deepest = (-1, False)
    for cut in cuts:
        if cut is None:
            break
        if cut.order >= deepest:
            found.append(cut)
            deepest = cut.order
    return list(dict.fromkeys(found))


def networks_for(
    model: keras.Model,
    phases: Sequence[Phase],
    strategy: tf.distribute.Strategy | None = None,
) -> Networks:
    """Makes the `Networks` of a run.

    Where one linear layer is all that trains, from the first phase to the last,
    weights below are constants, for speed. What else trains can amplify the
    last bits of activations, so that they are kept as the model computes them.

    Args:
        model: The model.
        phases: The phases.
        strategy: What computes on several devices. Defaults to `None`.

    Returns:
        `Networks`.
    """
    on_top = all(p.depth == 0 and not p.reinitialize for p in phases)
    return Networks(on_top and _is_linear(model), strategy)


def _is_linear(model: keras.Model) -> bool:
    """Whether one plain dense layer is all that the head can train."""
    if not has_exact_probe(model):
        return False
    below = graph.layers_below(model.get_layer("head"))
    inner = [
        layer
        for layer in below
        if layer.weights and not graph.is_functional(layer)
    ]
    return [type(layer) for layer in inner] == [keras.layers.Dense] and (
        len(inner[0].weights) <= 2  # LoRA trains a product.
    )


class Networks:
    """Compiles networks up to cuts, each once.

    Args:
        folded: Whether with constant weights; see `features.filling.compiled`.
            Defaults to `False`.
        strategy: What computes on several devices. Defaults to `None`.
    """

    def __init__(
        self,
        folded: bool = False,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._folded = folded
        self._strategy = strategy
        self._known: dict[tuple[tuple[Cut, ...], tuple[int, ...], str], Compute]
        self._known = {}

    def compiled(
        self, model: keras.Model, cuts: Sequence[Cut], shape: Sequence[int]
    ) -> Compute:
        """Returns the network from inputs to cuts.

        Args:
            model: The model, always the same.
            cuts: The cuts.
            shape: Of one input.

        Returns:
            What `features.filling.compiled` makes.
        """
        network = network_to(model, cuts)
        # What is folded stays as it was: other weights are another network.
        digest = digest_network(network) if self._folded else ""
        key = (tuple(cuts), tuple(shape), digest)
        if key not in self._known:
            self._known[key] = compiled(
                network, shape, self._folded, self._strategy
            )
        return self._known[key]

    @property
    def engine(self) -> str:
        """What computes them, in the keys of what is kept."""
        return FOLDED if self._folded else "tensorflow"

    def look(self, model: keras.Model, shape: Sequence[int]) -> Any:
        """Returns inputs to try a network with: no example has to pass.

        Noise in `[0, 255]` for images, a sentence for texts; zeros for whatever
        else a model may take, such as the numbers of tokens.

        Args:
            model: The model.
            shape: Of one input.

        Returns:
            float32 array `(32, ...)`, or a tensor of texts `(32,)`.
        """
        if graph.takes_texts(model):
            return keras.ops.convert_to_tensor([_SENTENCE] * _LOOK)
        if not has_children(model):
            return np.zeros((_LOOK, *shape), np.float32)
        noise = np.random.default_rng(0).uniform(0, 255, (_LOOK, *shape))
        return noise.astype(np.float32)

    def why_not(
        self, model: keras.Model, cut: Cut, shape: Sequence[int]
    ) -> Ineligible | None:
        """Says why layers of the user's own forbid a cut, if they do.

        They may do in training what nobody sees from outside, frozen or not:
        so they are tried, both ways and twice.

        Args:
            model: The model.
            cut: The cut.
            shape: Of one input.

        Returns:
            The reason, or `None`.
        """
        network = network_to(model, [cut])
        own = own_layers(network)
        if not own:
            return None
        # A number that no constant of the graph is likely to have rows of.
        look = self.look(model, shape)[:_ROWS]
        states = [(v, np.array(v)) for v in network.variables]
        try:
            runs = [
                keras.tree.flatten(network(look, training=training))
                for training in (False, True, True)
            ]
            moved = any(not np.array_equal(v, old) for v, old in states)
        finally:
            for variable, old in states:
                variable.assign(old)
        if any(len(tensor) != len(look) for tensor in runs[0]):
            return Ineligible("what crosses has no row for each example")
        alike = all(
            np.allclose(one, other, rtol=1e-5, atol=1e-6)
            for run in runs[1:]
            for one, other in zip(runs[0], run, strict=True)
        )
        if alike and not moved:
            return None
        names = ", ".join(sorted({layer.name for layer in own})[:3])
        return Ineligible(
            f"a layer below acts differently in training (one of {names})"
        )

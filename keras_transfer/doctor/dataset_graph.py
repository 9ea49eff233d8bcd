"""The graph of a `tf.data` pipeline, searched for caches of random results."""

from __future__ import annotations

import re
from typing import Any

_RANDOM_OPERATION = re.compile(
    r"(Stateless|Stateful)?(Random(?!Dataset)|SampleDistorted|Rng)"
)


def cached_after_random(dataset: Any) -> bool:
    """Tells whether a `tf.data.Dataset` caches the result of a random map.

    The graph of the pipeline is read, and nothing is run. Tensors in memory are
    part of that graph (600 MB take 6 seconds), so it is built only if there is
    a cache at all. Random numbers drawn in Python are not detected.
    """
    import tensorflow as tf

    describe = getattr(dataset, "__debug_string__", None)
    if describe is None or "CacheDataset" not in describe():
        return False
    try:
        serialized = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(dataset),
            external_state_policy=1,  # ignore operations with a state
        )
    except tf.errors.OpError:
        return False  # The source cannot be serialized.
    graph = tf.compat.v1.GraphDef.FromString(serialized.numpy())
    functions = {f.signature.name: f for f in graph.library.function}
    nodes = {node.name: node for node in graph.node}

    def is_random(node: Any, seen: frozenset[str] = frozenset()) -> bool:
        if _RANDOM_OPERATION.match(node.op):
            return True
        called = {
            name
            for value in node.attr.values()
            for name in (value.func.name, *(f.name for f in value.list.func))
            if name in functions
        } - seen
        return any(
            is_random(inner, seen | called)
            for name in called
            for inner in functions[name].node_def
        )

    # From each cache up to the sources.
    pending = [n for n in graph.node if n.op.startswith("CacheDataset")]
    seen = set()
    while pending:
        for name in pending.pop().input:
            parent = nodes.get(name.lstrip("^").split(":")[0])
            if parent is None or parent.name in seen:
                continue
            if is_random(parent):
                return True
            seen.add(parent.name)
            pending.append(parent)
    return False

"""The structure of a model: its graph, blocks, depth and trainable layers."""

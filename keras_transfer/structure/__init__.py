"""Reads models: graph, blocks, depth, what trains. Imports nothing above."""

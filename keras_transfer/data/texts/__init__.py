"""Texts: files and arrays."""

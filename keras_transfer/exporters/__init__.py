"""Exporters of networks to other formats."""

"""Frozen layers are computed once: cuts, policy, plan and store."""

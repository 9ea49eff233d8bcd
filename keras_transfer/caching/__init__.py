"""What is frozen is computed once: cuts, policy, plan and store."""

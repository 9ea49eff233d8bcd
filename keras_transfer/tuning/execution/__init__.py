"""Many runs of one model: what they share is done once."""

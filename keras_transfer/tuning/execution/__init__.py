"""Many runs of one model, which share activations and compiled steps."""

"""One interface for all that `fine_tune` reads examples from."""

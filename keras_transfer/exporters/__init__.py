"""Networks in other formats."""

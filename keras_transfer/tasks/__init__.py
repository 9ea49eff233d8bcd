"""Tasks: loss, metrics and label format of a prediction."""

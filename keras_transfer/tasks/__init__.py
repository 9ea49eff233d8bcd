"""What is predicted: loss, metrics and label formats of a task."""

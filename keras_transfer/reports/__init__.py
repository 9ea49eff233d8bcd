"""Plots and tables of results."""

from keras_transfer.reports.curves import (
    plot_accuracy_by_labels,
    plot_history,
    plot_learning_curves,
    plot_learning_rates,
)
from keras_transfer.reports.plots import (
    plot_clusters,
    plot_confusion_matrix,
    plot_costs,
    plot_images,
    plot_search,
)
from keras_transfer.reports.tables import write_predictions

__all__ = [
    "plot_accuracy_by_labels",
    "plot_clusters",
    "plot_confusion_matrix",
    "plot_costs",
    "plot_history",
    "plot_images",
    "plot_learning_curves",
    "plot_learning_rates",
    "plot_search",
    "write_predictions",
]

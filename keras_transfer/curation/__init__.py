"""Label errors, duplicates, outliers, and examples to label next."""

from keras_transfer.curation.active_learning import (
    select_representative,
    select_uncertain,
)
from keras_transfer.curation.cleaning import (
    ChosenExample,
    Duplicate,
    LabelError,
    find_duplicates,
    find_label_errors,
    find_outliers,
    outlier_scores,
)
from keras_transfer.curation.contact_sheet import plot_examples

__all__ = [
    "ChosenExample",
    "Duplicate",
    "LabelError",
    "find_duplicates",
    "find_label_errors",
    "find_outliers",
    "outlier_scores",
    "plot_examples",
    "select_representative",
    "select_uncertain",
]

"""Tasks: loss, metrics, label format and evaluation of what is predicted."""

from keras_transfer.tasks.choosing import TASKS, choose_task
from keras_transfer.tasks.classification import Classification
from keras_transfer.tasks.multi_label import MultiLabel
from keras_transfer.tasks.regression import Regression
from keras_transfer.tasks.task import Task

__all__ = [
    "Classification",
    "MultiLabel",
    "Regression",
    "TASKS",
    "Task",
    "choose_task",
]

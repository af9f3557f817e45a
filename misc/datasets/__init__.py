"""Data sets: reading images by class folder, and preparing the data sets of the experiments.

Configs import the names below from this package.
"""

from misc.datasets.digits import split_folder
from misc.datasets.image_folder import ImageFolder
from misc.datasets.transforms import evaluation_transform, map_transform, training_transform

__all__ = ["ImageFolder", "evaluation_transform", "map_transform", "split_folder", "training_transform"]

"""Data sets: reading images by class folder, and preparing the data sets of the experiments.

Configs import the names below from this package.
"""

from misc.datasets.digits import split_folder
from misc.datasets.image_folder import ImageFolder

__all__ = ["ImageFolder", "split_folder"]

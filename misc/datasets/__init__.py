"""Data sets: images by class folder, and the commands' own data sets, made whole or not at all.

Configs name what they need from here.
"""

from misc.datasets.digits import split_folder
from misc.datasets.image_folder import ImageFolder

__all__ = ["ImageFolder", "split_folder"]

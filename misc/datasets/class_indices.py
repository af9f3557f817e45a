"""The teacher's class index of each class folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from timm.data import ImageNetInfo

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError, nearest


def label_images(images: ImageFolder, num_classes: int, class_map: str | Path | None = None) -> dict[str, int]:
    """Make the teacher's class index the label of each image; return the index of each class folder.

    Args and errors: see `class_indices`.
    """
    indices = class_indices(images.classes, num_classes, class_map)
    images.target_transform = [indices[folder] for folder in images.classes].__getitem__
    return indices


def class_indices(folders: Sequence[str], num_classes: int, class_map: str | Path | None = None) -> dict[str, int]:
    """Return the teacher's class index of each class folder.

    It is the one in the file, if a file is given; else the folder's position, if there are as many folders as classes;
    else, for a teacher of 1000 classes, the ImageNet index of the synset that the folder is named after.

    Args:
        folders: names of the class folders, in the order of the data set.
        num_classes: number of the teacher's classes.
        class_map: JSON or YAML file, a mapping of folder to class index.

    Raises:
        UserError: a file without a valid index for every folder, or folders that match none of the rules.
    """
    if class_map is not None:
        return _of_file(Path(class_map), folders, num_classes)
    if len(folders) == num_classes:
        return {folder: index for index, folder in enumerate(folders)}
    synsets = ImageNetInfo().label_names()
    if num_classes == len(synsets) and set(folders) <= set(synsets):
        return {folder: synsets.index(folder) for folder in folders}
    # A subset without a mapping would explain the wrong classes.
    raise UserError(
        f"there are {len(folders)} class folders and the teacher knows {num_classes} classes: give a data set and a "
        "teacher with the same classes, the folders' classes as --class_map, or --target predicted"
    )


def digest(indices: Mapping[str, int]) -> str:
    """Return the sha256 of a mapping of folder to class index."""
    return hashlib.sha256(json.dumps(indices, sort_keys=True).encode()).hexdigest()


def _of_file(path: Path, folders: Sequence[str], num_classes: int) -> dict[str, int]:
    mapping = _read_mapping(path)
    indices = {}
    for folder in folders:
        if folder not in mapping:
            raise UserError(f"{path} has no class for folder '{folder}'{nearest(folder, mapping)}")
        index = mapping[folder]
        if type(index) is not int or not 0 <= index < num_classes:
            raise UserError(f"{path}: the class of '{folder}' is {index!r}, expected 0 to {num_classes - 1}")
        indices[folder] = index
    return indices


def _read_mapping(path: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(path.read_text())  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): expected JSON or YAML") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no mapping of folder to class index, such as {{cat: 281}}")
    return {str(folder): index for folder, index in content.items()}

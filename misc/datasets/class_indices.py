"""The classifier's class index of each class folder."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from timm.data import ImageNetInfo

from misc.errors import UserError, nearest

WNID = re.compile(r"n\d{8}")  # WordNet's number of a noun, the name of a class folder in ImageNet


def class_indices(folders: Sequence[str], num_classes: int, class_map: str | Path | None = None) -> dict[str, int]:
    """Return the classifier's class index of each class folder.

    It is the one in the file, if a file is given; else the folder's position, if there are as many folders as classes;
    else, for a classifier of 1,000 classes, the ImageNet-1k index of the wnid that the folder is named after.

    Args:
        folders: names of the class folders, in the order of the data set.
        num_classes: number of the classifier's classes.
        class_map: JSON or YAML file, a mapping of folder to class index.

    Raises:
        UserError: a file without a valid index for every folder, or folders that match none of the rules.
    """
    if class_map is not None:
        return _of_file(Path(class_map), folders, num_classes)
    if len(folders) == num_classes:
        return {folder: index for index, folder in enumerate(folders)}
    wnids = ImageNetInfo().label_names()
    strange = [folder for folder in folders if folder not in wnids]
    if num_classes == len(wnids) and not strange:
        return {folder: wnids.index(folder) for folder in folders}
    # A subset without a mapping would get the wrong classes.
    wrong = ""
    if num_classes == len(wnids):
        alike = nearest(strange[0], wnids) if WNID.fullmatch(strange[0]) else ""
        wrong = f"; '{strange[0]}' is no wnid of ImageNet-1k{alike}"
    raise UserError(
        f"there are {len(folders)} class folders and the classifier has {num_classes} classes{wrong}: "
        "give a file with the class index of each folder as class_map"
    )


def digest(indices: Mapping[str, int]) -> str:
    """Return the sha256 of a mapping of folder to class index."""
    return hashlib.sha256(json.dumps(indices, sort_keys=True).encode()).hexdigest()


def _of_file(path: Path, folders: Sequence[str], num_classes: int) -> dict[str, int]:
    mapping = read_class_map(path)
    indices = {}
    for folder in folders:
        if folder not in mapping:
            raise UserError(f"{path} has no class for folder '{folder}'{nearest(folder, mapping)}")
        index = mapping[folder]
        if type(index) is not int or not 0 <= index < num_classes:
            raise UserError(f"{path}: the class of '{folder}' is {index!r}, expected 0 to {num_classes - 1}")
        indices[folder] = index
    return indices


def read_class_map(path: Path) -> dict[str, object]:
    """Return the mapping in a JSON or YAML file, its keys as text; its values are not checked.

    Raises:
        UserError: not such a file.
    """
    try:
        content = yaml.safe_load(path.read_text())  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): expected JSON or YAML") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no mapping of folder to class index, such as {{cat: 281}}")
    return {str(folder): index for folder, index in content.items()}

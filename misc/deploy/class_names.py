"""What the classes of a student's classifier are called."""

from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from misc.config.entries import student_path
from misc.config.load import Config
from misc.datasets.class_indices import WNID, class_indices, read_class_map


def class_names(config: Config, num_classes: int) -> list[str] | None:
    """Return the name of each class by its index, or None if the names are not known.

    They are those of the config's `class_map`, if there is one (a class that is not in it is called "class" and its
    index), or the class folders of its test data set, if it is on disk and has that many; WordNet's numbers become
    words. A classifier of 1,000 classes has ImageNet's names if its test folders are some of ImageNet-1k's, or if there
    are none and it has timm's own weights.

    Args:
        config: a student's config.
        num_classes: the width of its classifier.
    """
    class_map = labelling_of_test(config).get("class_map")
    if class_map is not None:
        return _words(_of_class_map(class_map, num_classes))
    folder, imagenet = folder_of_test(config), ImageNetInfo().label_names()
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder else []
    if len(names) != num_classes:
        known = set(names) <= set(imagenet) if names else _is_as_pretrained(config)
        names = imagenet if known and num_classes == len(imagenet) else []
    return _words(names) or None


def labelling_of_test(config: Config) -> dict[str, Any]:
    """Return the arguments of the test's ImageFolder that say what its labels are."""
    kwargs = f"datasets.{config.construct('test.test_data_loader.dataset_id')}.init.kwargs"
    keys = ("classifier", "class_map")
    return {key: config.construct(f"{kwargs}.{key}") for key in keys if config.has(f"{kwargs}.{key}")}


def folder_of_test(config: Config) -> Path | None:
    """Return the folder of class folders on which the config tests, or None if it is not on disk."""
    root = f"datasets.{config.construct('test.test_data_loader.dataset_id')}.init.kwargs.root"
    if not config.has(root):
        return None
    if config.has(f"{root}.init.kwargs"):  # a call of split_folder, which would compose a missing data set
        kwargs = config.construct(f"{root}.init.kwargs")
        folder = Path(kwargs["root"]) / kwargs["split"]
    else:
        folder = Path(config.construct(root))
    return folder if folder.is_dir() else None


def _of_class_map(path: str, num_classes: int) -> list[str]:
    """Return a name per class: of several folders with one class, the first."""
    folders = list(read_class_map(Path(path)))
    indices = class_indices(folders, num_classes, path)
    names = {indices[folder]: folder for folder in reversed(folders)}
    return [names.get(index, f"class {index}") for index in range(num_classes)]


def _is_as_pretrained(config: Config) -> bool:
    backbone = config.construct(f"{student_path(config)}.kwargs.backbone")
    own = any(backbone.get(key) is not None for key in ("weights_path", "new_classifier"))
    return bool(backbone.get("pretrained")) and not own


def _words(names: list[str]) -> list[str]:
    if not any(map(WNID.fullmatch, names)):
        return names
    info = ImageNetInfo()
    return [_word(info, name) for name in names]


def _word(info: ImageNetInfo, name: str) -> str:
    """Return the first of WordNet's synonyms; a name that is not in WordNet stays as it is."""
    try:
        return info.label_name_to_description(name).split(", ")[0]
    except KeyError:
        return name

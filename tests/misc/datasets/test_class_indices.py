"""Class folders find the teacher's classes, or are told what is missing."""

import pytest
from timm.data import ImageNetInfo

from misc.datasets.class_indices import class_indices, digest
from misc.errors import UserError


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "classes").write_text(text)
        return tmp_path / "classes"

    return write


def test_as_many_folders_as_classes_go_by_order():
    assert class_indices(["ant", "bee"], 2) == {"ant": 0, "bee": 1}


def test_synsets_find_their_place_in_imagenet():
    """Tench, goldfish and toilet tissue: the first two classes and the last."""
    assert class_indices(["n01440764", "n01443537", "n15075141"], 1000) == {
        "n01440764": 0,
        "n01443537": 1,
        "n15075141": 999,
    }


def test_the_synsets_are_in_the_order_of_their_folders():
    """What goes by order and what goes by synset agree on the whole of ImageNet."""
    synsets = ImageNetInfo().label_names()
    assert list(synsets) == sorted(synsets) and len(synsets) == 1000


@pytest.mark.parametrize("text", ['{"ant": 7, "bee": 0}', "ant: 7\nbee: 0\nwasp: 3"])
def test_a_file_comes_first(written, text):
    assert class_indices(["ant", "bee"], 8, written(text)) == {"ant": 7, "bee": 0}
    assert class_indices(["n01440764"], 1000, written("n01440764: 5")) == {"n01440764": 5}


@pytest.mark.parametrize(("folders", "num_classes"), [(["ant"], 2), (["n01440764"], 10)])
def test_what_cannot_be_matched_is_refused(folders, num_classes):
    with pytest.raises(UserError, match=rf"{len(folders)} class folders .* {num_classes} classes: .* as class_map"):
        class_indices(folders, num_classes)


def test_a_folder_that_is_no_wnid_is_named_and_only_a_number_has_a_nearest_one():
    with pytest.raises(UserError, match="'cat' is no wnid of ImageNet-1k: give a file"):
        class_indices(["cat", "n01443537"], 1000)
    with pytest.raises(UserError, match="'n01440765' is no wnid of ImageNet-1k; the nearest there is 'n01440764'"):
        class_indices(["n01443537", "n01440765"], 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ants: 0, bee: 1}", r"no class for folder 'ant'; the nearest there is 'ants'"),
        ("{ant: 2, bee: 1}", r"class of 'ant' is 2, expected 0 to 1"),
        ("{ant: -1, bee: 1}", r"is -1, expected 0 to 1"),
        ("{ant: true, bee: 1}", r"is True, expected"),
        ("{ant: 0.0, bee: 1}", r"is 0\.0, expected"),
        ("{ant: 0", r"cannot be read"),
        ("- ant", r"holds no mapping"),
        ("", r"holds no mapping"),
    ],
)
def test_mistakes_in_the_file_are_named(written, text, message):
    with pytest.raises(UserError, match=message) as error:
        class_indices(["ant", "bee"], 2, written(text))
    assert "\n" not in str(error.value)


def test_the_digest_depends_on_the_mapping_alone():
    assert digest({"ant": 0, "bee": 1}) == digest({"bee": 1, "ant": 0}) != digest({"ant": 1, "bee": 0})

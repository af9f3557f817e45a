import pytest

from misc.config.load import compose_config
from misc.deploy.class_names import class_names, folder_of_test

DIGITS = "config/quickstart/sg_resnet.yaml"
TINY = "config/tiny_imagenet/student_resnet.yaml"
IMAGENET = "config/main_experiments/phd/lmbda_0.032.yaml"


@pytest.fixture
def root(tmp_path):
    """An empty data set, with one file that is no class."""
    (tmp_path / "data" / "val").mkdir(parents=True)
    (tmp_path / "data" / "val" / "list.txt").touch()
    return tmp_path / "data"


def names(config, root, num_classes, *overrides):
    return class_names(compose_config(config, [f"dataset_root={root}", *overrides], mode="test"), num_classes)


def add_classes(root, *classes):
    for name in classes:
        (root / "val" / name).mkdir()


def test_names_are_the_sorted_class_folders(root):
    add_classes(root, "b", "a", "c")
    assert names(TINY, root, 3) == ["a", "b", "c"]


def test_wordnet_numbers_become_words_and_unknown_ones_stay(root):
    add_classes(root, "n03085013", "n01443537", "n99999999")
    assert names(TINY, root, 3) == ["goldfish", "computer keyboard", "n99999999"]


OWN = "config/own/phd.yaml"


def test_a_class_map_gives_the_order(root):
    add_classes(root, "ant", "bee", "cat")
    (root / "classes.yaml").write_text("{ant: 2, bee: 0, cat: 1}")
    assert names(OWN, root, 3, f"class_map={root / 'classes.yaml'}") == ["bee", "cat", "ant"]


def test_a_class_map_names_classes_without_a_folder_and_leaves_the_others_their_index(root):
    add_classes(root, "ant")
    (root / "classes.yaml").write_text("{ant: 2, bee: 0, wasp: 0}")
    assert names(OWN, root, 4, f"class_map={root / 'classes.yaml'}") == ["bee", "class 1", "ant", "class 3"]


def test_some_of_imagenets_folders_have_all_of_its_names(root):
    add_classes(root, "n01443537", "n15075141")
    assert names(OWN, root, 1000)[1] == "goldfish"
    assert names(OWN, root, 10) is None


def test_own_weights_of_1000_classes_have_no_names_without_their_folders(tmp_path):
    config = compose_config(OWN, [f"dataset_root={tmp_path}/none"], mode="test")
    assert class_names(config, 1000)[1] == "goldfish"
    config = compose_config(OWN, [f"dataset_root={tmp_path}/none", "vars.backbone.weights_path=mine.pth"], mode="test")
    assert class_names(config, 1000) is None


def test_another_number_of_folders_gives_no_names(root):
    add_classes(root, "a", "b")
    assert names(TINY, root, 3) is None


def test_a_missing_data_set_is_not_composed(tmp_path):
    root = tmp_path / "digits"
    assert names(DIGITS, root, 10) is None
    assert not root.exists()


def test_a_split_of_the_digits_is_found(root):
    add_classes(root, *map(str, range(10)))
    assert names(DIGITS, root, 10) == list("0123456789")
    assert folder_of_test(compose_config(DIGITS, [f"dataset_root={root}"], mode="test")) == root / "val"


def test_a_pretrained_classifier_has_the_names_of_imagenet(tmp_path):
    found = names(IMAGENET, tmp_path / "none", 1000)
    assert len(found) == 1000 and (found[0], found[1], found[999]) == ("tench", "goldfish", "toilet tissue")


@pytest.mark.parametrize("change", ["pretrained=false", "new_classifier=1000"])
def test_any_other_classifier_has_none(tmp_path, change):
    config = "config/finetune/new_classifier.yaml"
    override = f"models.model.kwargs.backbone.{change}"
    assert names(config, tmp_path / "none", 1000, override) is None

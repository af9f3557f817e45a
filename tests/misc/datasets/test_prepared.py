"""A data set's folder: there when it is whole, and never another's."""

from pathlib import Path

import pytest

from misc.datasets.prepared import MANIFEST, make_data_set
from misc.errors import UserError


def fill(folder: Path) -> dict:
    (folder / "image").write_text("pixels")
    return {"count": 1}


def interrupted(folder: Path) -> dict:
    (folder / "part").touch()
    raise KeyboardInterrupt


def never(folder: Path) -> dict:
    raise AssertionError(folder)


def test_a_data_set_is_made_once(tmp_path):
    root = tmp_path / "data"
    assert make_data_set(root, {"seed": 1}, fill) == {"seed": 1, "count": 1}
    assert make_data_set(root, {"seed": 1}, never) == {"seed": 1, "count": 1}
    assert sorted(path.name for path in root.iterdir()) == ["image", MANIFEST]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(("seed", "kept"), [(1, True), (2, False)])
def test_an_interrupted_one_is_not_there_and_is_resumed_if_it_is_the_same(tmp_path, seed, kept):
    root = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        make_data_set(root, {"seed": 1}, interrupted)
    assert not root.exists()
    make_data_set(root, {"seed": seed}, fill)
    assert (root / "part").exists() is kept
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"seed": 2}, r"a data set with seed=1, not 2: name another folder"),
        ({"seed": 1, "classes": {f"n{number:08}": "" for number in range(200)}}, "a data set with other classes: name"),
    ],
)
def test_another_data_set_is_kept(tmp_path, wanted, said):
    make_data_set(tmp_path / "data", {"seed": 1}, fill)
    with pytest.raises(UserError, match=said):
        make_data_set(tmp_path / "data", wanted, never)
    assert (tmp_path / "data" / "image").read_text() == "pixels"


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_manifest_that_is_none_is_another_data_sets(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UserError, match="seed=None, not 1"):
        make_data_set(tmp_path, {"seed": 1}, never)


def test_other_files_are_kept(tmp_path):
    (tmp_path / "mine").touch()
    for root in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UserError, match="holds other files"):
            make_data_set(root, {"seed": 1}, never)
    assert (tmp_path / "mine").exists()


def test_the_working_directory_and_a_link_can_be_the_folder(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path / "here")
    make_data_set(Path("."), {"seed": 1}, fill)
    make_data_set(tmp_path / "link", {"seed": 1}, fill)
    assert (tmp_path / "here" / "image").exists() and (tmp_path / "there" / "image").exists()


def test_a_mount_point_is_refused_before_any_work():
    with pytest.raises(UserError, match="where a file system is mounted: name a folder inside it"):
        make_data_set(Path("/"), {"seed": 1}, never)

"""Folders of maps: every format and dtype reads alike, packing survives a kill, damage is named."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from misc.errors import UserError
from saliency_maps import map_folder
from saliency_maps.map_folder import DTYPES, MapFolder, write_map, write_pack

NAMES = ["ant/0.npy", "ant/1.npy", "ant/2.npy", "bee/0.npy"]
STEPS = {"float32": 0, "float16": 2**-11, "uint8": 0.5 / 255}  # half the distance of neighbouring values, at most


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.random((5, 7), np.float32) for name in NAMES}


@pytest.fixture
def root(tmp_path, values):
    return written(tmp_path / "maps", values)


def written(root, values, dtype="float32"):
    for name, saliency in values.items():
        write_map(root / name, saliency, dtype)
    return root


def packed(root):
    write_pack(root, "ant", NAMES[:3])
    write_pack(root, "bee", NAMES[3:])
    return root


def files(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [lambda root: root, packed], ids=["npy", "packed"])
def test_every_format_and_dtype_reads_alike(tmp_path, values, dtype, form):
    maps = MapFolder(form(written(tmp_path, values, dtype)))
    assert maps.names == set(NAMES)
    for name, saliency in values.items():
        found = maps.read(name)
        assert type(found) is np.ndarray and found.dtype == np.float32 and found.shape == (5, 7)
        assert np.abs(found - saliency).max() <= STEPS[dtype] * 1.001


def test_eight_bits_are_rounded_to_the_nearest_and_keep_both_ends(tmp_path):
    write_map(tmp_path / "ant" / "0.npy", np.array([[0, 0.4 / 255, 0.6 / 255, 1]]), "uint8")
    assert np.array_equal(MapFolder(tmp_path).read("ant/0.npy"), np.array([[0, 0, 1 / 255, 1]], np.float32))


def test_a_pack_is_one_mappable_file_per_class_with_an_index(root, values):
    assert set(files(packed(root))) == {"ant.npy", "ant.json", "bee.npy", "bee.json"}
    assert not (root / "ant").exists()
    mapped = np.load(root / "ant.npy", mmap_mode="r")
    assert np.array_equal(mapped, np.stack([values[name] for name in NAMES[:3]]))
    assert map_folder.read_json(root / "ant.json") == {"names": ["0.npy", "1.npy", "2.npy"]}


def test_a_pack_grows(root, values):
    expected = files(packed(shutil.copytree(root, root.with_name("at_once"))))
    held_back = {name: (root / name).read_bytes() for name in NAMES[2:3]}
    (root / NAMES[2]).unlink()
    write_pack(root, "ant", NAMES[:2])
    write_pack(root, "bee", NAMES[3:])
    (root / "ant").mkdir()
    (root / NAMES[2]).write_bytes(held_back[NAMES[2]])
    assert MapFolder(root).names == set(NAMES)  # part packed, part not
    write_pack(root, "ant", NAMES[:3])
    assert files(root) == expected


class Stopped(BaseException):
    """Stands in for a kill."""


@pytest.mark.parametrize("grown", [False, True])
def test_a_kill_while_packing_loses_nothing_and_shows_no_part(root, values, grown, monkeypatch):
    """The process ends before its first step on the disk, before its second, and so on; then the same again."""
    expected = files(packed(shutil.copytree(root, root.with_name("at_once"))))
    if grown:
        third = (root / NAMES[2]).read_bytes()
        (root / NAMES[2]).unlink()
        write_pack(root, "ant", NAMES[:2])
        (root / "ant").mkdir()
        (root / NAMES[2]).write_bytes(third)
    for step in range(1, 100):
        copy = shutil.copytree(root, root.with_name(f"stopped{step}"))
        with monkeypatch.context() as patch:
            stop_before(step, patch)
            try:
                write_pack(copy, "ant", NAMES[:3])
                stopped = False
            except Stopped:
                stopped = True
        maps = MapFolder(copy)
        assert maps.names == set(NAMES)
        assert all(np.array_equal(maps.read(name), saliency) for name, saliency in values.items())
        assert files(packed(copy)) == expected
        if not stopped:
            break
    assert step == (5 if grown else 7)  # two renames, a deletion per single map, the folder's, and the run to the end


def stop_before(step, patch) -> None:
    """Lets the process end before its `step`-th rename or deletion."""
    steps = iter(range(1, 100))

    def counted(function):
        def count(*args, **kwargs):
            if next(steps) == step:
                raise Stopped
            return function(*args, **kwargs)

        return count

    for module, name in ((os, "replace"), (Path, "unlink"), (Path, "rmdir")):
        patch.setattr(module, name, counted(getattr(module, name)))


class Names(Dataset):
    """Maps by their place in a list, as a data set reads them in its workers."""

    def __init__(self, root):
        self.maps = MapFolder(root)

    def __len__(self):
        return len(NAMES)

    def __getitem__(self, index):
        return self.maps.read(NAMES[index])


@pytest.mark.parametrize(("method", "num_workers"), [("fork", 2), ("spawn", 1)])
def test_workers_read_packs(root, values, method, num_workers):
    names = Names(packed(root))
    names[0]  # mapped before the workers start
    batches = list(DataLoader(names, 2, num_workers=num_workers, multiprocessing_context=method))
    assert np.array_equal(np.concatenate(batches), np.stack(list(values.values())))


def test_a_mapping_is_not_sent_as_values(root):
    maps = MapFolder(packed(root))
    maps.read(NAMES[0])
    sent = pickle.dumps(maps)
    assert maps.read(NAMES[0]).tobytes() not in sent
    assert np.array_equal(pickle.loads(sent).read(NAMES[0]), maps.read(NAMES[0]))


def test_a_missing_map_is_named(root):
    for form in (root, packed(root)):
        with pytest.raises(UserError, match=r"maps/bee/7\.npy is missing"):
            MapFolder(form).read("bee/7.npy")


def test_a_damaged_map_is_named(root):
    (root / NAMES[0]).write_bytes((root / NAMES[0]).read_bytes()[:150])
    with pytest.raises(UserError, match=r"ant/0\.npy is not a saliency map"):
        MapFolder(root).read(NAMES[0])
    np.save(root / NAMES[1], np.zeros((2, 2, 2), np.float32))
    with pytest.raises(UserError, match=r"ant/1\.npy has shape \(2, 2, 2\), not \(height, width\)"):
        MapFolder(root).read(NAMES[1])
    np.save(root / NAMES[3], np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"bee/0\.npy holds float64, not one of float32, float16, uint8"):
        MapFolder(root).read(NAMES[3])


def test_a_damaged_pack_is_named(root):
    packed(root)
    (root / "ant.npy").write_bytes((root / "ant.npy").read_bytes()[:-4])
    (root / "bee.json").write_text("{")
    with pytest.raises(UserError, match=r"bee\.json cannot be read"):
        MapFolder(root).read(NAMES[3])
    with pytest.raises(UserError, match=r"ant\.npy is not a saliency map"):
        MapFolder(root).read(NAMES[0])
    np.save(root / "ant.npy", np.zeros((2, 5, 7), np.float32))
    with pytest.raises(UserError, match=r"ant\.npy has shape \(2, 5, 7\), not \(3, height, width\)"):
        MapFolder(root).read(NAMES[0])


@pytest.mark.parametrize("content", ["[2]", '{"settings": 3}'])
def test_a_manifest_of_something_else_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json holds no .*: make the maps again"):
        _ = MapFolder(tmp_path).manifest


def test_no_folder_has_no_maps_and_no_manifest(tmp_path):
    maps = MapFolder(tmp_path / "nowhere")
    assert maps.names == frozenset()
    with pytest.raises(UserError, match=r"nowhere has no manifest\.json"):
        _ = maps.manifest
    with pytest.raises(UserError, match=r"4 of 4 maps are missing .*\(ant/0\.npy, ant/1\.npy, ant/2\.npy, \.\.\.\)"):
        maps.check_complete(NAMES)

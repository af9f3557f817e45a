"""The section `maps` of a sweep file."""

import pytest

from misc.datasets.digits import write_data_set
from misc.errors import UserError
from misc.files import ROOT
from misc.sweeps.maps import read_maps
from saliency_maps.map_folder import MapFolder


def test_maps_are_flags_by_folder(tmp_path):
    flags = {"config": "a.yaml", "input": "images", "mix_layers": True, "eigen_smooth": False, "num_workers": 0}
    (maps,) = read_maps({"resources/maps/../here": flags}, tmp_path / "sweep.yaml")
    assert maps.folder == ROOT / "resources/here"
    assert maps.arguments == (
        f"--config={tmp_path / 'a.yaml'}",
        "--input=images",
        "--mix_layers",
        "--num_workers=0",
        f"--output={ROOT / 'resources/here'}",
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mix_layer": True}, "unknown flag 'mix_layer' of the maps m; did you mean 'mix_layers'"),
        ({"output": "n"}, "unknown flag 'output'"),
        ({"saliency_type": "GradCAM++"}, "the maps m: argument --saliency_type: invalid choice: 'GradCAM\\+\\+'"),
        ({"target_dim": 28}, "the maps m: --target_dim sets the side of the maps of --patch_cam: give both"),
        ({"model": "a"}, "the maps m: argument --model: not allowed with argument --config"),
    ],
)
def test_mistakes_in_maps_are_named(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        read_maps({"m": {"config": "a.yaml", "input": "images", **flags}}, tmp_path / "sweep.yaml")


@pytest.mark.slow
def test_maps_are_made(tmp_path):
    write_data_set(tmp_path / "digits", num_train=10, num_val=10)
    config = str(ROOT / "config/quickstart/sg_resnet.yaml")
    flags = {"config": config, "input": str(tmp_path / "digits/train"), "patch_cam": True}
    (maps,) = read_maps({str(tmp_path / "maps"): flags}, tmp_path / "sweep.yaml")
    assert maps.make("cpu")
    assert len(MapFolder(maps.folder).names) == MapFolder(maps.folder).manifest["num_maps"] == 10
    (others,) = read_maps({str(tmp_path / "maps"): {**flags, "target_dim": 14}}, tmp_path / "sweep.yaml")
    assert not others.make("cpu")  # the folder holds maps of other settings


def test_a_section_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(UserError, match="'maps' must map folders to flags"):
        read_maps(["m"], tmp_path / "sweep.yaml")

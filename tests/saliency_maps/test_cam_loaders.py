"""Images and maps stay together: by name on disk, by parameters under random transforms."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from misc.errors import UserError
from saliency_maps.cam_loaders import ImageFolderWithMaps
from saliency_maps.map_folder import MANIFEST, dataset_identity, write_json, write_map

NAMES = ["ant/0.png", "ant/1.png", "bee/0.png"]


def keep(image, saliency):
    return image, saliency


@pytest.fixture
def paired(tmp_path):
    """Images whose red channel is their map, smooth and different for each."""
    rows, columns = np.mgrid[0:96, 0:80]
    for index, name in enumerate(NAMES):
        saliency = (127.5 + 127.5 * np.sin(rows / (7 + index)) * np.cos(columns / 9)).astype(np.uint8)
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([saliency, saliency * 0 + 40, saliency * 0 + 90], axis=2)).save(path)
        write_map((tmp_path / "maps" / name).with_suffix(".npy"), saliency / 255)
    write_json(
        tmp_path / "maps" / MANIFEST, {"settings": {"dataset_sha256": dataset_identity(tmp_path / "photos", NAMES)}}
    )
    return tmp_path / "photos", tmp_path / "maps"


def test_an_item_is_an_image_its_label_and_its_map(paired):
    images = ImageFolderWithMaps(*paired, keep)
    image, target = images[2]
    assert len(images) == 3 and target["label"] == 1
    assert type(target["saliency"]) is torch.Tensor and target["saliency"].dtype == torch.float32
    assert target["saliency"].shape == (1, image.height, image.width)
    np.testing.assert_allclose(target["saliency"][0].numpy(), np.asarray(image)[:, :, 0] / 255, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_crop_and_flip_hit_both_alike(paired, seed):
    torch.manual_seed(seed)
    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(48, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomCrop(44, padding=6, padding_mode="reflect"),
            v2.RandomCrop(44, padding=6),
        ]
    )
    image, target = ImageFolderWithMaps(*paired, transforms)[0]
    torch.testing.assert_close(image[:1].as_subclass(torch.Tensor), target["saliency"], atol=1e-5, rtol=0)


def test_a_resize_hits_both_alike(paired):
    transforms = v2.Compose([v2.Resize(40), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    image, target = ImageFolderWithMaps(*paired, transforms)[1]
    torch.testing.assert_close(image[:1].as_subclass(torch.Tensor), target["saliency"], atol=2 / 255, rtol=0)


def test_colours_and_normalisation_leave_the_map_alone(paired):
    transforms = v2.Compose(
        [
            v2.ColorJitter(0.9, 0.9, 0.9),
            v2.RandomGrayscale(1.0),
            v2.GaussianBlur(5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.2] * 3),
        ]
    )
    _, plain = ImageFolderWithMaps(*paired, keep)[0]
    image, target = ImageFolderWithMaps(*paired, transforms)[0]
    assert image.min() < 0
    torch.testing.assert_close(target["saliency"], plain["saliency"])


def test_a_coarse_map_covers_the_whole_image(paired):
    images, maps = paired
    write_map(maps / "ant" / "0.npy", np.array([[0.0, 1.0]]))
    saliency = ImageFolderWithMaps(images, maps, keep)[0][1]["saliency"]
    assert saliency.shape == (1, 96, 80)
    assert (saliency[..., :20] == 0).all() and (saliency[..., 60:] == 1).all()
    torch.testing.assert_close(saliency.mean(), torch.tensor(0.5))


def test_items_make_a_batch(paired):
    transforms = v2.Compose([v2.RandomResizedCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    loader = torch.utils.data.DataLoader(ImageFolderWithMaps(*paired, transforms), batch_size=3)
    images, targets = next(iter(loader))
    assert images.shape == (3, 3, 32, 32) and targets["saliency"].shape == (3, 1, 32, 32)
    assert targets["label"].tolist() == [0, 0, 1]


def test_pairs_do_not_depend_on_where_the_data_set_lies(paired, tmp_path):
    images, maps = paired
    elsewhere = shutil.move(images, tmp_path / "moved")
    assert len(ImageFolderWithMaps(f"{elsewhere}/", str(maps), keep)) == 3


def test_no_manifest_names_what_makes_the_maps(paired):
    images, maps = paired
    (maps / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"cam_map_generation\.py .*config/own/README.md"):
        ImageFolderWithMaps(images, maps, keep)


def test_maps_of_another_data_set_are_refused(paired):
    images, maps = paired
    shutil.copy(images / "ant" / "0.png", images / "bee" / "7.png")
    with pytest.raises(UserError, match="made for another data set"):
        ImageFolderWithMaps(images, maps, keep)


def test_missing_maps_are_counted_and_named(paired):
    images, maps = paired
    (maps / "ant" / "1.npy").unlink()
    (maps / "bee" / "0.npy").unlink()
    with pytest.raises(UserError, match=r"2 of 3 maps are missing .*\(ant/1.npy, bee/0.npy\)"):
        ImageFolderWithMaps(images, maps, keep)


def test_a_broken_map_is_named(paired):
    images, maps = paired
    (maps / "ant" / "0.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"ant/0.npy is not a saliency map"):
        ImageFolderWithMaps(images, maps, keep)[0]


def test_a_broken_manifest_is_named(paired):
    images, maps = paired
    (maps / MANIFEST).write_text(json.dumps({})[:1])
    with pytest.raises(UserError, match="cannot be read"):
        ImageFolderWithMaps(images, maps, keep)

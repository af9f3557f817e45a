"""Data sets that pair an image with its saliency map, by name, and transform both together."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from misc.datasets.image_folder import ImageFolder
from misc.errors import UserError
from saliency_maps.map_folder import MapFolder, dataset_identity, map_names, relative_image_names


class SaliencyMap(tv_tensors.Mask):
    """A map, (1, H, W) in [0, 1], that torchvision.transforms.v2 moves like a mask but resizes bilinearly.

    As a mask it follows every geometric transform, and photometric ones and Normalize leave it unchanged. Masks are
    resized by nearest neighbour, which would shift a smooth map against its image by up to half a cell.
    """


@F.register_kernel(F.resize, SaliencyMap)
def _resize(saliency: SaliencyMap, size: list[int] | None, max_size: int | None = None, **_: Any) -> SaliencyMap:
    resized = F.resize_image(saliency.as_subclass(Tensor), size, InterpolationMode.BILINEAR, max_size, antialias=True)
    return tv_tensors.wrap(resized, like=saliency)


@F.register_kernel(F.resized_crop, SaliencyMap)
def _resized_crop(
    saliency: SaliencyMap, top: int, left: int, height: int, width: int, size: list[int], **_: Any
) -> SaliencyMap:
    cropped = F.crop_image(saliency.as_subclass(Tensor), top, left, height, width)
    resized = F.resize_image(cropped, size, InterpolationMode.BILINEAR, antialias=True)
    return tv_tensors.wrap(resized, like=saliency)


class ImageFolderWithMaps(ImageFolder):
    """An ImageFolder whose targets hold the saliency map of their image.

    Args:
        root: images in one folder per class.
        map_root: the output folder of `saliency_maps/cam_prep/cam_map_generation.py` for `root`.
        transforms: a torchvision.transforms.v2 callable taking (PIL image, SaliencyMap of the image's size) and
            returning both; a random crop or flip hits the two with the same parameters.
        exchange_seed: seed of a random permutation of the maps over the images, as the control of an experiment with
            maps; None gives each image its own.
        **labels: `classifier`, `class_map` and `labelled`, as for `ImageFolder`.

    An item is `(image, {"label": int, "saliency": float tensor (1, H, W) in [0, 1]})`.

    Raises:
        UserError: no manifest, maps of another data set, or images without a map.
    """

    has_maps = True  # a dry run gives such a data set's stand-in maps too

    def __init__(
        self,
        root: str | Path,
        map_root: str | Path,
        transforms: Callable[..., tuple[Any, Tensor]],
        exchange_seed: int | None = None,
        **labels: Any,
    ) -> None:
        super().__init__(root, **labels)
        self.maps = MapFolder(map_root)
        self.joint_transforms = transforms
        image_names = relative_image_names(self.root, (path for path, _ in self.samples))
        self.map_names = map_names(image_names)
        if self.maps.manifest.get("settings", {}).get("dataset_sha256") != dataset_identity(self.root, image_names):
            raise UserError(f"the maps in {self.maps.root} were made for another data set than {self.root}")
        self.maps.check_complete(self.map_names)
        if exchange_seed is not None:
            random.Random(exchange_seed).shuffle(self.map_names)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        image, label = super().__getitem__(index)
        saliency = torch.from_numpy(self.maps.read(self.map_names[index]))[None]
        saliency = F.resize(SaliencyMap(saliency), [image.height, image.width])
        image, saliency = self.joint_transforms(image, saliency)
        return image, {"label": label, "saliency": saliency.as_subclass(Tensor)}

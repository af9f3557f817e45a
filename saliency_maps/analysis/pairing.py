"""Which image has which map."""

from collections.abc import Sequence

from misc.errors import UserError, nearest
from saliency_maps.map_folder import MapFolder, map_names


def maps_of_images(maps: MapFolder, image_names: Sequence[str]) -> dict[str, str]:
    """Return the map's name, `cat/0001.npy`, by the image's name, `cat/0001.jpg`, of those images that have a map.

    Raises:
        UserError: there is no such folder, or none of them has.
    """
    if not maps.root.is_dir():
        raise UserError(f"no maps at {maps.root.absolute()}: expected a folder of maps")
    expected = dict(zip(image_names, map_names(image_names), strict=True))
    found = {image: name for image, name in expected.items() if name in maps.names}
    if not found:
        first = expected[image_names[0]]
        there = nearest(first, sorted(maps.names))
        raise UserError(f"none of {len(image_names)} images has a map in {maps.root}: expected {first}{there}")
    return found

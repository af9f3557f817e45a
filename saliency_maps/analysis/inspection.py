"""Describe a folder of maps in lines of text: how they were made, what they cover, how their values are distributed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from misc.errors import UserError, first_few
from misc.progress import progress_bar
from saliency_maps.analysis.statistics import QUANTILES, TOP_SHARE, MapStatistics
from saliency_maps.map_folder import MANIFEST, SETTINGS, MapFolder, dataset_identity, read_json

HEADING = 22  # characters
MOST_LAYERS = 4  # a longer list is shortened
Lines = list[tuple[str, str]]


def section(title: str, lines: Lines) -> str:
    """Return a titled list of headings and texts."""
    return "\n".join([title, *(f"  {heading:<{HEADING}}{text}" for heading, text in lines), ""])


def settings_of(maps: MapFolder) -> tuple[dict[str, Any], bool]:
    """Return the settings that made the maps, and whether the run has finished.

    Raises:
        UserError: the folder has neither a manifest nor the settings of a run.
    """
    if (maps.root / MANIFEST).is_file() or not (maps.root / SETTINGS).is_file():
        return maps.manifest.get("settings", {}), True
    return read_json(maps.root / SETTINGS), False


def origin(folder: Path, settings: Mapping[str, Any], is_finished: bool) -> Lines:
    """Return how the maps were made."""
    lines = [
        ("folder", str(folder)),
        ("method", method(settings)),
        ("layers", layers(settings)),
        ("model", str(settings.get("model", "unknown"))),
        ("size", " x ".join(map(str, settings.get("map_size", ["unknown"])))),
    ]
    unfinished = ("state", f"unfinished, there is no {MANIFEST} yet: give the command that makes the maps again")
    return lines if is_finished else [*lines, unfinished]


def method(settings: Mapping[str, Any]) -> str:
    """Return the CAM method, and whether it takes the principal component."""
    return settings.get("saliency_type", "unknown") + (", eigen_smooth" if settings.get("eigen_smooth") else "")


def layers(settings: Mapping[str, Any]) -> str:
    """Return the target layers; a long list is shortened."""
    names = settings.get("layers", ["unknown"])
    return ", ".join(names) if len(names) <= MOST_LAYERS else counted(names)


def coverage_lines(
    maps: MapFolder, root: Path, names: Sequence[str], maps_of: Mapping[str, str], settings: Mapping[str, Any]
) -> Lines:
    """Return how many images have a map, and which images and maps lack their counterpart."""
    missing = [name for name in names if name not in maps_of]
    orphans = sorted(maps.names.difference(maps_of.values()))
    is_same = settings.get("dataset_sha256") == dataset_identity(root, names)
    return [
        ("images", f"{len(names):,}" + ("" if is_same else ", not the ones that the maps were made for")),
        ("images with a map", f"{len(maps_of):,} ({100 * len(maps_of) / len(names):.1f} %)"),
        ("images without", counted(missing)),
        ("maps without image", counted(orphans)),
    ]


class Contents(NamedTuple):
    """Statistics of all readable maps, and the names of uniform and of unreadable ones."""

    statistics: MapStatistics
    uniform: list[str]
    damaged: list[str]


def read_all(maps: MapFolder) -> Contents:
    """Read every map once."""
    contents = Contents(MapStatistics(), [], [])
    for name in progress_bar(sorted(maps.names), "reading maps", unit="maps"):
        try:
            saliency = maps.read(name)
        except UserError:
            contents.damaged.append(name)
            continue
        if contents.statistics.update(saliency):
            contents.uniform.append(name)
    if not contents.statistics.maps:
        maps.read(contents.damaged[0])  # says what is wrong with it
    return contents


def defects(contents: Contents) -> Lines:
    """Return which maps carry no information."""
    return [("uniform maps", counted(contents.uniform)), ("damaged maps", counted(contents.damaged))]


def counted(names: Sequence[str]) -> str:
    """Return the number of names and the first of them."""
    return f"{len(names):,}: {first_few(names)}" if names else "0"


def value_lines(statistics: MapStatistics) -> Lines:
    """Return the distribution of the values; figures in brackets are those of a uniform map."""
    quantiles = (f"{statistics.quantile(share):.3f} ({100 * share:.0f} %)" for share in QUANTILES)
    return [
        ("mean", f"{statistics.mean:.3f}"),
        ("standard deviation", f"{statistics.std:.3f}"),
        ("quantiles", ", ".join(quantiles)),
        (
            f"mass in top {100 * TOP_SHARE:.0f} %",
            f"{100 * statistics.top_share:.1f} % of a map's mass lies in its "
            f"{100 * TOP_SHARE:.0f} % highest positions (uniform map: {100 * TOP_SHARE:.0f} %)",
        ),
        ("entropy", f"{statistics.relative_entropy:.3f} of a uniform map's"),
    ]

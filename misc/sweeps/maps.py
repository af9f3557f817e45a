"""The saliency maps that the runs of a sweep need, and how to make them."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from misc.config.load import Config
from misc.errors import UserError, did_you_mean
from misc.files import ROOT
from saliency_maps.cam_prep import cam_map_generation


@dataclass(frozen=True)
class Maps:
    """A folder of saliency maps and the command that makes it.

    Attributes:
        folder: absolute path.
        arguments: command line of cam_map_generation.py; its paths are relative to the repository root.
    """

    folder: Path
    arguments: tuple[str, ...]

    def command(self, device: str | None) -> list[str]:
        """Return the command that makes the missing maps, to be run in the repository's root."""
        command = [sys.executable, cam_map_generation.__file__, *self.arguments]
        return command + (["--device", device] if device else [])

    def make(self, device: str | None) -> bool:
        """Make the missing maps in a process that shows its progress and errors; return whether it succeeded."""
        return subprocess.run(self.command(device), cwd=ROOT).returncode == 0


def read_maps(section: Mapping[str, Mapping[str, object]], path: Path) -> list[Maps]:
    """Return the folders in the section `maps` of a sweep file.

    Args:
        section: flags of cam_map_generation.py by folder; a flag without a value is true or false.
        path: the sweep file, to which the flag `config` is relative.

    Raises:
        UserError: the section is malformed, or its flags are unknown, missing, invalid or incompatible.
    """
    is_valid = isinstance(section, Mapping) and all(
        isinstance(folder, str) and isinstance(flags, Mapping) for folder, flags in section.items()
    )
    if not is_valid:
        raise UserError(f"{path}: 'maps' must map folders to flags of cam_map_generation.py")
    return [_maps(folder, flags, path) for folder, flags in section.items()]


def maps_of(config: Config, all_maps: Sequence[Maps]) -> Maps | None:
    """Return the maps at a config's `map_root`; None if the config has none, or the sweep file has no `maps`.

    Raises:
        UserError: the sweep file does not name that folder.
    """
    if not all_maps or not config.has("map_root"):
        return None
    root = config.construct("map_root")
    by_folder = {str(maps.folder): maps for maps in all_maps}
    if root not in by_folder:
        raise UserError(f"'maps' does not name its map_root {root}{did_you_mean(root, by_folder)}")
    return by_folder[root]


def _maps(folder: str, flags: Mapping[str, object], path: Path) -> Maps:
    known = vars(cam_map_generation.parse_args(["--model=", "--input=", "--output="])).keys() - {"output"}
    for flag in flags:
        if flag not in known:
            raise UserError(f"{path}: unknown flag '{flag}' of the maps {folder}{did_you_mean(flag, known)}")
        if not isinstance(flags[flag], str | bool | int | float):
            raise UserError(f"{path}: '{flag}' of the maps {folder} is {flags[flag]}: expected a single value")
    root = os.path.normpath(ROOT / os.path.expanduser(folder))
    values = {**flags, "output": root}
    if "config" in flags:
        values["config"] = (path.parent / str(flags["config"])).resolve()
    given = {flag: value for flag, value in values.items() if value is not False}
    arguments = tuple(f"--{flag}" if value is True else f"--{flag}={value}" for flag, value in given.items())
    _check(arguments, f"{path}: the maps {folder}")
    return Maps(Path(root), arguments)


def _check(arguments: Sequence[str], place: str) -> None:
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            cam_map_generation.check_flags(cam_map_generation.parse_args(arguments))
    except SystemExit:  # argparse prints the usage, then a line with the reason
        raise UserError(f"{place}: {output.getvalue().splitlines()[-1].partition('error: ')[2]}") from None
    except UserError as error:
        raise UserError(f"{place}: {error}") from None

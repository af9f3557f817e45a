"""The commands of a sweep's runs, for schedulers other than Ray."""

import shlex
import sys
from collections.abc import Mapping, Sequence

from misc.sweeps.maps import Maps
from misc.sweeps.plan import Run
from saliency_maps.map_folder import MANIFEST


def print_commands(
    runs: Sequence[Run], undone: Sequence[str], needs: Mapping[Run, Maps | None], device: str | None
) -> None:
    """Print the commands of runs on stdout; on stderr, what others wait for, and which commands begin a run anew.

    Args:
        runs: that are not done.
        undone: names of all such runs of the sweep.
        needs: the maps of each run.
        device: of every run; None leaves it to the run.
    """
    missing = dict.fromkeys(maps for run in runs if (maps := needs[run]) and not (maps.folder / MANIFEST).is_file())
    for maps in missing:
        waiting = sum(needs[run] == maps for run in runs)
        print(f"# {waiting} runs need these maps first:\n{shlex.join(maps.command(device))}", file=sys.stderr)
    for run in runs:
        if run.begins_with in undone:
            print(f"# {run.name} begins with the weights of {run.begins_with}: list it after that run", file=sys.stderr)
        elif needs[run] not in missing:
            if run.is_outdated():
                print(f"# {run.name} begins anew: list it again to resume it", file=sys.stderr)
            print(shlex.join(run.command(device)))

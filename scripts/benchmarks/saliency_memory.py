"""Measure whether the memory of the map command grows with the data set: its peak after few and after many images."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from misc.errors import UserError, exit_on_user_error
from misc.files import ROOT
from misc.tables import text_table

COMMAND = "saliency_maps/cam_prep/cam_map_generation.py"
METHOD = ("--saliency_type", "XGradCAM", "--eigen_smooth", "--mix_layers", "--patch_cam")


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", required=True, type=Path, metavar="IMAGES", help="one folder per class")
    parser.add_argument("--config", default="config/quickstart/sg_resnet.yaml", help="default: %(default)s")
    parser.add_argument("--limits", type=int, nargs="+", default=[200, 5000], metavar="N", help="default: 200 5000")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    peaks = [peak_memory(args.input, args.config, limit) for limit in args.limits]
    table = [["images", "peak memory", "relative to the first"]]
    for limit, peak in zip(args.limits, peaks, strict=True):
        table.append([f"{limit:,}", f"{peak / 1e6:.1f} MB", f"{100 * (peak / peaks[0] - 1):+.1f} %"])
    print(text_table(table))


def peak_memory(images: Path, config: str, limit: int) -> int:
    """Return the largest resident set, in bytes, that the command or one of its readers had.

    Raises:
        UserError: the command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--config", config, "--input", str(images), "--output", folder, "--limit", str(limit), *METHOD]
        process = subprocess.Popen([sys.executable, COMMAND, *flags], cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError(f"the map command ended with status {os.waitstatus_to_exitcode(status)}: see above")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()

"""Kill map generation and training at random moments, resume them, and compare with uninterrupted runs.

    python scripts/checks/torture.py

SIGKILL comes at any moment, while a file is being written, or while a training validates. After every kill of the map
generation, each map must be complete or absent. In the end the maps must be identical byte for byte, and the trained
weights bit for bit. Runs on the CPU, in a temporary folder.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from misc.datasets.digits import write_data_set
from misc.errors import UserError, exit_on_user_error
from misc.files import ROOT, is_temporary
from misc.tables import text_table

CONFIG = "config/quickstart/sg_resnet.yaml"
MAPS = ["--saliency_type", "XGradCAM", "--eigen_smooth", "--mix_layers", "--patch_cam", "--target_dim", "28"]
MAPS += ["--batch_size", "10"]
ANY, WRITING, VALIDATING = "any moment", "writing", "validating"
CHECKPOINT_EVERY = 5  # seconds


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--kills", type=int, default=20, help="of map generation and of training (default: %(default)s)")
    add("--images", type=int, default=12_000, help="to train on (default: %(default)s, as in the quickstart)")
    add("--epochs", type=int, default=2, help="of each of the two stages (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the moments to kill at (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        write_data_set(folder / "digits", num_train=args.images, num_val=max(20, args.images // 6))
        rows = [["", "uninterrupted s", "killed s", "kills", "moments", "lost per kill s", "compared", "differing"]]
        for title, torture in (("maps", torture_maps), ("training", torture_training)):
            rows.append([title, *torture(folder, args, chance)])
    print(text_table(rows))
    if any(row[-1] != "0" for row in rows[1:]):
        sys.exit(1)


def torture_maps(folder: Path, args: argparse.Namespace, chance: random.Random) -> list[str]:
    """Return the table's row of the map generation."""
    program = [str(ROOT / "saliency_maps/cam_prep/cam_map_generation.py"), "--config", str(ROOT / CONFIG)]
    program += ["--input", str(folder / "digits/train"), "--device", "cpu", *MAPS, "--output"]
    whole, killed = folder / "maps", folder / "maps_killed"

    def check() -> None:
        for path in killed.rglob("*.npy"):
            if not is_temporary(path.name):
                np.load(path)

    return torture([*program, str(whole)], [*program, str(killed)], killed, None, check, args.kills, chance) + compared(
        {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*.npy")},
        {path.relative_to(killed): path.read_bytes() for path in killed.rglob("*.npy") if not is_temporary(path.name)},
        lambda one, other: one == other,
    )


def torture_training(folder: Path, args: argparse.Namespace, chance: random.Random) -> list[str]:
    """Return the table's row of a training in two stages, with the maps made before."""
    settings = {"dataset_root": folder / "digits", "map_root": folder / "maps"}
    settings |= {f"train.stage{stage}.num_epochs": args.epochs for stage in (1, 2)}
    mark = folder / "validating"
    program = [str(ROOT / "scripts/checks/marked_training.py"), str(mark), str(CHECKPOINT_EVERY)]
    program += ["--config", str(ROOT / CONFIG), "--device", "cpu"]
    program += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    program += ["--skip_ckpt", "--resume", "--run_dir"]
    whole, killed = folder / "run", folder / "run_killed"
    row = torture([*program, str(whole)], [*program, str(killed)], killed, mark, lambda: None, args.kills, chance)
    weights = (load_file(run / "weights.safetensors") for run in (whole, killed))
    return row + compared(*weights, torch.equal)


def compared(whole: dict, killed: dict, equal: Callable) -> list[str]:
    """Return how many items were compared, and how many differ or exist only once."""
    shared = whole.keys() & killed.keys()
    differing = sum(not equal(whole[name], killed[name]) for name in shared) + len(whole.keys() ^ killed.keys())
    return [f"{len(whole):,}", str(differing)]


def torture(
    whole: Sequence[str],
    killed: Sequence[str],
    output: Path,
    mark: Path | None,
    check: Callable[[], None],
    kills: int,
    chance: random.Random,
) -> list[str]:
    """Run a program uninterrupted, then again with kills.

    Args:
        whole: arguments of Python for the uninterrupted run.
        killed: the same with another output.
        output: folder into which the killed run writes.
        mark: file that exists while the program validates; None if it never does.
        check: called after every kill; raises if something is wrong.
        kills: their number.
        chance: decides when to kill.

    Returns:
        The cells of the table's row up to the comparison.
    """
    start = time.monotonic()
    finish(whole)
    uninterrupted = time.monotonic() - start
    moments = [ANY if number % 2 else WRITING for number in range(kills)]
    if mark is not None:  # at three of its four validations: waiting for one takes the training up to it
        for quarter in (1, 2, 3):
            moments[quarter * kills // 4] = VALIDATING
    start = time.monotonic()
    for number, wanted in enumerate(moments):
        moments[number] = kill(killed, output, mark, wanted, chance.uniform(0, uninterrupted / kills / 2))
        print(f"kill {number + 1} of {kills}, {moments[number]}", flush=True)
        check()
    finish(killed)
    seconds = time.monotonic() - start
    told = ", ".join(f"{moments.count(moment)} {moment}" for moment in sorted(set(moments)))
    lost = (seconds - uninterrupted) / kills
    return [f"{uninterrupted:.0f}", f"{seconds:.0f}", str(kills), told, f"{lost:.1f}"]


def finish(program: Sequence[str]) -> None:
    """Run a program to its end."""
    result = subprocess.run([sys.executable, *program], cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"the program failed: {(result.stderr.strip().splitlines() or ['no message'])[-1]}")


def kill(program: Sequence[str], output: Path, mark: Path | None, wanted: str, delay: float) -> str:
    """Start a program, wait for its first line, and kill it; return the kind of moment at which it was killed.

    Args:
        program: arguments of Python.
        output: folder into which it writes.
        mark: file that exists while it validates.
        wanted: the kind of moment; if no file is written within twice the delay, any moment will do.
        delay: seconds from the first line during which it is left alone.

    Raises:
        UserError: the program ended before it was killed.
    """
    command = [sys.executable, "-u", *program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        end = time.monotonic() + 2 * delay
        time.sleep(delay)
        while process.poll() is None and not has_come(wanted, output, mark):
            if wanted == WRITING and time.monotonic() > end:
                wanted = ANY
        if process.poll() is not None:
            raise UserError("the program ended before it was killed: give more --images or --epochs, or fewer --kills")
        process.kill()
    if mark is not None:
        mark.unlink(missing_ok=True)
    return wanted


def has_come(moment: str, output: Path, mark: Path | None) -> bool:
    """Tell whether it is such a moment now."""
    if moment == WRITING:
        return any(is_temporary(file) for _, _, files in os.walk(output) for file in files)
    return moment == ANY or mark.exists()


if __name__ == "__main__":
    main()

"""One look for every progress bar: description, share, rate and time left, on stderr."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress_bar(
    iterable: Iterable | None = None,
    description: str = "",
    total: int | None = None,
    unit: str = "images",
    width: int = 100,
    initial: int = 0,
):
    """Returns a tqdm bar that refreshes twice a second on a terminal and every 10 seconds in a log file."""
    interval = 0.5 if sys.stderr.isatty() else 10.0
    look = {"unit": f" {unit}", "mininterval": interval, "maxinterval": interval, "ncols": width}
    return tqdm(iterable, description, total, initial=initial, **look)


def advance(bar: tqdm, images: int) -> None:
    """Moves a bar on, at most to its end: ranks that share whole batches are not all done at once."""
    bar.update(min(images, bar.total - bar.n))

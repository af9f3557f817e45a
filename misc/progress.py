"""Progress bars on stderr, all in one format."""

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
    """Return a tqdm bar that refreshes twice a second on a terminal and every 10 seconds in a log file."""
    interval = 0.5 if sys.stderr.isatty() else 10.0
    look = {"unit": f" {unit}", "mininterval": interval, "maxinterval": interval, "ncols": width}
    return tqdm(iterable, description, total, initial=initial, **look)


def advance(bar: tqdm, images: int) -> None:
    """Advance a bar, at most to its total: with several ranks the last batch may overshoot it."""
    bar.update(min(images, bar.total - bar.n))

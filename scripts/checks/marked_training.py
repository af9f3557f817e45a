"""Train as the entry point does, with a file that exists while the training validates; used by `torture.py`.

    python scripts/checks/marked_training.py MARK SECONDS ARGUMENTS...

MARK is the file, SECONDS the time between checkpoints, the rest are arguments of the entry point.
"""

import sys
from pathlib import Path
from typing import Any

from main_classification_torchdistill import main
from misc.training import loop


def patch_training(mark: Path, checkpoint_every: float) -> None:
    """Change this process's training loop.

    Args:
        mark: file to make before every validation and to remove after it.
        checkpoint_every: seconds between checkpoints.
    """
    validate = loop.validate

    def validate_marked(*args: Any) -> dict[str, float]:
        mark.touch()
        try:
            return validate(*args)
        finally:
            mark.unlink()

    loop.validate, loop.CHECKPOINT_EVERY = validate_marked, checkpoint_every


if __name__ == "__main__":
    mark, checkpoint_every, *arguments = sys.argv[1:]
    patch_training(Path(mark), float(checkpoint_every))
    main(arguments)

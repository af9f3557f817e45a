"""What a training writes about itself: history.jsonl, TensorBoard events, and a line in log.txt per epoch."""

import json
import logging
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from misc.files import write_atomically
from misc.training.checkpoint import Progress

LOG_EVERY = 50  # steps
logger = logging.getLogger(__name__)


class RunRecord:
    """The record of one training in its run folder.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.history = run_dir / "history.jsonl"
        self.events = self._open_events()

    def _open_events(self, purge_step: int | None = None) -> SummaryWriter:
        return SummaryWriter(self.run_dir / "events", purge_step=purge_step)

    def rewind(self, progress: Progress) -> None:
        """Drop what was recorded after a checkpoint: a resumed run repeats those steps."""
        truncate_history(self.history, progress.history_rows)
        self.events.close()
        self.events = self._open_events(purge_step=progress.total_steps + 1)

    def add_step(self, step: int, losses: dict[str, float]) -> None:
        """Write every `LOG_EVERY`th step's loss and terms as events."""
        if step % LOG_EVERY == 0:
            self._add_events("train", losses, step)

    def add_epoch(
        self,
        progress: Progress,
        num_epochs: int,
        losses: dict[str, float],
        validation: dict[str, float],
        learning_rate: float,
    ) -> str:
        """Write a finished epoch everywhere.

        Args:
            progress: at the end of the epoch.
            num_epochs: of the stage.
            losses: means of the loss and its terms over the epoch.
            validation: what `misc.evaluation.accuracy.validate` returned.
            learning_rate: of the first parameter group.

        Returns:
            The line in the log.
        """
        line = epoch_line(progress, num_epochs, losses, validation)
        logger.info(line)
        self._add_events("epoch", losses, progress.total_steps)
        self._add_events("val", validation, progress.total_steps)
        self.events.add_scalar("lr", learning_rate, progress.total_steps)
        row = {"stage": progress.stage, "epoch": progress.epoch, **losses}
        row |= {f"val_{name}": value for name, value in validation.items()}
        with open(self.history, "a") as history:
            history.write(json.dumps({**row, "seconds": round(progress.epoch_seconds, 1)}) + "\n")
        return line

    def _add_events(self, group: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.events.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        self.events.close()


def epoch_line(progress: Progress, num_epochs: int, losses: dict[str, float], validation: dict[str, float]) -> str:
    """Return one line about an epoch for a reader; arguments are those of `RunRecord.add_epoch`."""
    means = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    size = f", {validation['bits_per_image'] / 8:.1f} bytes/image" if "bits_per_image" in validation else ""
    place = f"stage {progress.stage} epoch {progress.epoch}/{num_epochs}"
    return f"{place}: {means} | val top-1 {validation['top1']:.2f} %{size} | {progress.epoch_seconds:.0f} s"


def truncate_history(history: Path, num_rows: int) -> None:
    """Keep the first rows of a history file, if there is one."""
    if history.is_file():
        rows = history.read_bytes().splitlines(keepends=True)
        write_atomically(history, b"".join(rows[:num_rows]))

"""History, events and log line of a training, and their rewinding to a checkpoint."""

import json
import logging

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from misc.training.checkpoint import Progress
from misc.training.record import LOG_EVERY, RunRecord, truncate_history


def test_an_epoch_is_a_line_a_row_and_events(tmp_path, caplog):
    progress = Progress(stage=2, epoch=3, epoch_steps=4, epoch_seconds=12.34, total_steps=9)
    record = RunRecord(tmp_path)
    with caplog.at_level(logging.INFO):
        line = record.add_epoch(progress, 5, {"loss": 1.5, "rate": 0.25}, {"top1": 50.0, "bits_per_image": 80.0}, 0.1)
    record.close()
    assert line == "stage 2 epoch 3/5: loss 1.5, rate 0.25 | val top-1 50.00 %, 10.0 bytes/image | 12 s"
    assert caplog.messages == [line]
    row = {"stage": 2, "epoch": 3, "loss": 1.5, "rate": 0.25, "val_top1": 50.0, "val_bits_per_image": 80.0}
    assert json.loads((tmp_path / "history.jsonl").read_text()) == {**row, "seconds": 12.3}
    assert steps(tmp_path, "epoch/loss") == steps(tmp_path, "lr") == [9]


def test_some_steps_are_events(tmp_path):
    record = RunRecord(tmp_path)
    for step in range(1, 2 * LOG_EVERY + 2):
        record.add_step(step, {"loss": 1.0})
    record.close()
    assert steps(tmp_path, "train/loss") == [LOG_EVERY, 2 * LOG_EVERY]


def test_a_rewound_record_holds_nothing_twice(tmp_path):
    record = RunRecord(tmp_path)
    for epoch in (1, 2, 3):
        progress = Progress(epoch=epoch, total_steps=10 * epoch, history_rows=epoch - 1)
        record.add_epoch(progress, 3, {"loss": float(epoch)}, {"top1": 0.0}, 0.1)
    record.rewind(Progress(epoch=2, total_steps=10, history_rows=1))
    record.add_epoch(Progress(epoch=2, total_steps=20), 3, {"loss": 7.0}, {"top1": 0.0}, 0.1)
    record.close()
    rows = [json.loads(line)["loss"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rows == [1.0, 7.0]
    assert steps(tmp_path, "epoch/loss") == [10, 20]


def test_a_history_that_does_not_exist_yet_stays_so(tmp_path):
    truncate_history(tmp_path / "history.jsonl", 0)
    assert not list(tmp_path.iterdir())


def steps(folder, tag: str) -> list[int]:
    """Return the steps at which a value was written."""
    events = EventAccumulator(str(folder / "events")).Reload()
    return [event.step for event in events.Scalars(tag)]

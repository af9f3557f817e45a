"""The benchmarks of the saliency stage run and print their tables."""

import pytest

from misc.datasets.digits import write_data_set
from scripts.benchmarks import saliency, saliency_memory

pytestmark = pytest.mark.slow


def test_the_stage_is_compared(capsys):
    flags = ["--batch_size", "1", "--batches", "1", "--rounds", "1", "--device", "cpu"]
    saliency.main(["--model", "resnet10t", *flags])
    printed = capsys.readouterr().out
    assert "pytorch-grad-cam" in printed and "images/s" in printed and "largest error" in printed


def test_memory_is_compared(tmp_path, capsys):
    write_data_set(tmp_path, num_train=10, num_val=10)
    saliency_memory.main(["--input", str(tmp_path / "val"), "--limits", "2", "4"])
    assert "+0.0 %" in capsys.readouterr().out

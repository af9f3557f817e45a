import re
import shutil

import pytest

from misc.deploy.sample_images import generated_samples
from misc.deploy.transform_steps import transform_steps
from misc.errors import UserError
from scripts.benchmarks import edge, edge_encode
from scripts.benchmarks.edge_encode import cells, torch_transform
from scripts.benchmarks.edge_process import environment_size, run
from tests.golden.make_edges import TRANSFORM

CONFIG = ["--config", "config/quickstart/sg_resnet.yaml"]


def test_ratios_are_to_the_first_side_in_the_same_round():
    times = {"torch": [10.0, 20.0, 40.0], "onnx": [5.0, 5.0, 4.0]}
    assert cells(times) == {"torch": "20.00 ms (1.00)", "onnx": "5.00 ms (0.25)"}


def test_the_transform_of_an_export_is_torchvisions():
    steps = transform_steps(TRANSFORM)
    (image,) = generated_samples(1).images
    assert torch_transform(steps)(image).equal(TRANSFORM(image))
    assert steps == transform_steps(TRANSFORM)  # unchanged


def test_processes_are_measured_and_failures_told():
    seconds, mebibytes = run(["python3", "-c", "x = b'1' * (64 * 2**20)"])
    assert seconds > 0 and 64 < mebibytes < 200  # this process's own libraries take more
    with pytest.raises(UserError, match="exit code 3"):
        run(["python3", "-c", "raise SystemExit(3)"])


def test_an_environment_is_measured_where_it_is(tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    python.chmod(0o755)
    before = environment_size(str(python))
    (tmp_path / "large").write_bytes(b"1" * 2**20)
    assert 0.9 < environment_size(str(python)) - before < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("what", edge.ROUNDS)
def test_every_benchmark_prints_a_table(what, capsys):
    edge.main([what, *CONFIG, "--rounds", "1", "--requests", "70"])
    out = capsys.readouterr().out
    if what == "encode":
        assert re.search(r"ONNX int8 +[\d.]+ ms \([\d.]+\)", out) and "JPEG, quality 20" in out
        assert ("node" in out) == bool(shutil.which("node") and edge_encode.VENDOR.is_dir())
    elif what == "process":
        assert re.search(r"edge_client.py +[\d.]+ +\d+ +[\d,]+", out)
    else:
        assert re.search(r"batches, 5 % damaged streams .+ 0$", out, re.MULTILINE)

import random
import subprocess
import sys
import zlib

import pytest
import torch

from misc.config.load import compose_config
from misc.deploy import arguments
from misc.deploy.load import load_edge
from misc.errors import UserError
from model.coding.bitstream import BitstreamError
from scripts.checks.mutate_bitstreams import main, mutated, resealed, run


class Half:
    """A stub of a server half: decodes any bytes whose checksum is right, or raises the given error."""

    def __init__(self, error=None):
        self.error = error

    def latents(self, streams):
        if self.error is not None:
            raise self.error
        if zlib.crc32(streams[0][:-4]).to_bytes(4, "little") != streams[0][-4:]:
            raise BitstreamError("checksum of 7 bytes")
        return torch.zeros(1)


class Hanging:
    """A stub of a server half that never returns."""

    def latents(self, streams):
        while True:
            pass


ORIGINALS = [resealed(b"F2abcd\x08" + bytes(range(20, 60)) + b"....")]


def test_half_of_the_mutations_are_sealed_again():
    outcomes, longest = run(Half(), ORIGINALS, 200, random.Random(0))
    assert outcomes["right checksum", "decoded"] == 100
    assert 90 <= outcomes["wrong checksum", "refused: checksum of  bytes"] <= 100 and longest < 1


@pytest.mark.parametrize("error", [IndexError("crash"), RuntimeError("crash")])
def test_any_other_error_ends_the_run(error):
    with pytest.raises(type(error), match="crash"):
        run(Half(error), ORIGINALS, 2, random.Random(0))


def test_a_mutant_without_right_checksum_must_not_be_decoded(monkeypatch):
    monkeypatch.setattr("scripts.checks.mutate_bitstreams.zlib.crc32", lambda body: 0)
    monkeypatch.setattr("scripts.checks.mutate_bitstreams.mutated", lambda packed, others, chance: b"F2" + bytes(20))
    with pytest.raises(UserError, match="mutation 0 was decoded"):
        run(Half(), ORIGINALS, 2, random.Random(0))


def test_a_mutant_that_takes_too_long_ends_the_process():
    program = "import random, scripts.checks.mutate_bitstreams as m, tests.scripts.checks.test_mutate_bitstreams as t\n"
    program += "m.TOO_LONG_S = 0.1\nm.run(t.Hanging(), t.ORIGINALS, 2, random.Random(0))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "Timeout" in ended.stderr and "latents" in ended.stderr


def test_mutations_differ_and_are_repeatable():
    mutants = [mutated(ORIGINALS[0], ORIGINALS, random.Random(seed)) for seed in range(50)]
    assert mutants == [mutated(ORIGINALS[0], ORIGINALS, random.Random(seed)) for seed in range(50)]
    assert len(set(mutants)) > 40


def test_streams_of_the_shipped_student_survive_mutations(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(arguments, "default_run_dir", lambda config: tmp_path / "no run")
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    config = "config/quickstart/sg_resnet.yaml"
    edge = load_edge(compose_config(config, mode="test"), "resources/weights/quickstart/sg_resnet.safetensors")
    stream = tmp_path / "zeros.fsb"
    stream.write_bytes(edge.encode(torch.zeros(1, 3, 64, 64))[0])
    main([str(stream), "--config", config, "--device", "cpu", "--count", "20"])
    *outcomes, summary = capfd.readouterr().out.splitlines()
    assert summary.startswith("20 mutations, the slowest took ")
    assert 10 <= sum(int(line.split()[-1]) for line in outcomes) <= 20

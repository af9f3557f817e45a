import platform

import pytest
import torch

from misc.devices import usable_autocast


@pytest.mark.parametrize(
    ("machine", "capability", "dtype", "usable"),
    [
        ("x86_64", "AVX2", "bfloat16", None),
        ("AMD64", "DEFAULT", "bfloat16", None),
        ("x86_64", "AVX512", "bfloat16", "bfloat16"),
        ("aarch64", "DEFAULT", "bfloat16", "bfloat16"),
        ("x86_64", "AVX2", None, None),
    ],
)
def test_bfloat16_is_left_to_cpus_that_are_fast_in_it(monkeypatch, machine, capability, dtype, usable):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert usable_autocast(dtype, torch.device("cpu")) == usable
    assert usable_autocast(dtype, torch.device("cuda")) == dtype

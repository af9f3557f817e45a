import json
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# At the first backward pass of a process, PyTorch counts its devices, and refuses forks if there are any. torch.export
# adds one (without memory), after which the tests that fork could not compute gradients.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture
def write_sweep(tmp_path):
    """Write a sweep file of groups; runs and results go to the test's folder."""

    def write(groups: list[dict], **others) -> Path:
        path = tmp_path / "sweep.yaml"
        content = {"output": str(tmp_path / "runs"), "results": str(tmp_path / "rows.csv"), "groups": groups, **others}
        path.write_text(json.dumps(content))
        return path

    return write

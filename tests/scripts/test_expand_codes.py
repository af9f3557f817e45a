"""Weights from codes and codebooks."""

import pytest
import torch

from model.classifier import create_timm_model
from scripts import expand_codes


@pytest.fixture
def coded():
    """A model whose fc is coded by two rows of three numbers, and the values of all else."""
    torch.manual_seed(0)
    model = create_timm_model("resnet10t", num_classes=1000)
    state = {name: each.clone() for name, each in model.named_parameters()}
    del state["fc.weight"]
    state["fc.codebook"] = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float16)
    state["fc.codes_matrix"] = torch.tensor([0, 1] * 128_000, dtype=torch.uint8)
    return state


def test_codes_become_rows_of_the_codebook(coded, tmp_path, capsys):
    torch.save(coded, tmp_path / "codes.pth")
    output = tmp_path / "new" / "weights.safetensors"
    expand_codes.main([str(tmp_path / "codes.pth"), "resnet10t", "-o", str(output)])
    model = create_timm_model("resnet10t", str(output))
    assert torch.equal(model.fc.weight, torch.tensor([0.0, 1.0, 2.0, 3.0] * 128).repeat(1000, 1))
    assert torch.equal(model.conv1[0].weight, coded["conv1.0.weight"])
    assert torch.equal(model.bn1.running_var, torch.ones_like(model.bn1.running_var))
    assert f"{output}: {sum(each.numel() for each in model.parameters()):,} parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "fc.codes_matrix",
            torch.zeros(7, dtype=torch.uint8),
            "codes of fc.weight stand for 14 values; expected 512,000",
        ),
        ("bn1.bias", None, "1 tensors have neither values nor codes with a codebook: bn1.bias"),
        ("fc.codebook", None, "1 tensors have neither values nor codes with a codebook: fc.weight"),
        ("bn1.bias", torch.zeros(2), "1 of another shape (bn1.bias)"),
    ],
)
def test_what_does_not_fit_is_one_line(coded, tmp_path, capsys, key, value, message):
    coded[key] = value
    torch.save({name: each for name, each in coded.items() if each is not None}, tmp_path / "codes.pth")
    with pytest.raises(SystemExit) as stopped:
        expand_codes.main([str(tmp_path / "codes.pth"), "resnet10t", "-o", str(tmp_path / "out.safetensors")])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()

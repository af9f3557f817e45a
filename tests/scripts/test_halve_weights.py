import pytest
import torch

from misc.config.load import compose_config
from misc.deploy.load import load_edge, load_server
from model.weights import read_facts, read_state_dict
from scripts.halve_weights import main

CONFIG = "config/quickstart/sg_resnet.yaml"
WEIGHTS = "resources/weights/quickstart/sg_resnet.safetensors"


def test_a_decoder_in_half_the_size_decodes_the_same_streams(tmp_path, capsys):
    output = tmp_path / "half.safetensors"
    main(["--config", CONFIG, WEIGHTS, "-o", str(output), "--parts", "decoder"])
    assert f"{output.stat().st_size:,} bytes instead of" in capsys.readouterr().out
    config, x = compose_config(CONFIG, mode="test"), torch.randn(2, 3, 64, 64)
    streams = load_edge(config, WEIGHTS).encode(x)
    assert load_edge(config, output).encode(x) == streams
    before, after = (load_server(config, weights).decode(streams) for weights in (WEIGHTS, output))
    torch.testing.assert_close(after, before, rtol=0.02, atol=0.02)
    assert read_facts(output) == read_facts(WEIGHTS)
    assert torch.float16 not in {tensor.dtype for tensor in read_state_dict(output).values()}


def test_a_student_in_half_the_size_agrees_with_itself(tmp_path):
    output = tmp_path / "half.safetensors"
    main(["--config", CONFIG, WEIGHTS, "-o", str(output)])
    config, x = compose_config(CONFIG, mode="test"), torch.randn(2, 3, 64, 64)
    edge, server = load_edge(config, output), load_server(config, output)
    streams = edge.encode(x)
    torch.testing.assert_close(server.latents(streams), edge.entropy_model(edge.encoder(x)))
    again = tmp_path / "again.safetensors"
    main(["--config", CONFIG, str(output), "-o", str(again)])
    assert again.read_bytes() == output.read_bytes()


def test_another_kind_of_file_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--config", CONFIG, WEIGHTS, "-o", str(tmp_path / "half.pt")])
    assert "must end in .safetensors" in capsys.readouterr().err

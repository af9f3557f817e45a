"""Weights as timm, torchvision and Lightning write them; the number of classes; the image format."""

import argparse

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3

from misc.errors import UserError
from model.classifier import create_timm_model, data_config_of, num_classes_of


def test_weights_survive_a_round_trip_through_both_formats(backbone_arguments, tmp_path):
    model = create_timm_model(**backbone_arguments)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    for name in ("model.safetensors", "model.pt"):
        loaded = create_timm_model(**backbone_arguments, weights_path=str(tmp_path / name))
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_weights_that_do_not_fit_are_refused_with_their_keys(backbone_arguments, tmp_path):
    state = create_timm_model(**backbone_arguments).state_dict()
    first, second, *_ = state
    state["surplus"] = state.pop(first)
    state[second] = torch.zeros(1)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError) as refusal:
        create_timm_model(**backbone_arguments, weights_path=str(tmp_path / "wrong.safetensors"))
    for part in (f"1 missing ({first})", "1 unexpected (surplus)", f"1 of another shape ({second})"):
        assert part in str(refusal.value)


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Planted:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"model": Planted()}, tmp_path / "planted.pt")
    with pytest.raises(UserError, match=r"not a weights file .*: it holds .*open; save model.state_dict\(\) instead"):
        create_timm_model("resnet18", weights_path=str(tmp_path / "planted.pt"))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_timms_training_script_gives_its_moving_average(tmp_path):
    model = create_timm_model("resnet10t", num_classes=3)
    ema = ModelEmaV3(model, decay=0.5)
    first = torch.clone(model.fc.bias.detach())
    with torch.no_grad():
        model.fc.bias += 1
    ema.update(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for name, average, wanted in (("raw", None, first + 1), ("ema", ema, first + 0.5)):
        (tmp_path / name).mkdir()
        saver = CheckpointSaver(
            torch.nn.DataParallel(model),  # whose names begin with "module."
            optimizer,
            argparse.Namespace(model="resnet10t"),
            average,
            checkpoint_dir=str(tmp_path / name),
            recovery_dir=str(tmp_path / name),
        )
        saver.save_checkpoint(0, metric=50.0)
        best = tmp_path / name / "model_best.pth.tar"
        assert torch.allclose(create_timm_model("resnet10t", str(best)).fc.bias, wanted)


def test_a_moving_average_of_torchvisions_training_script_is_read(tmp_path):
    model = create_timm_model("resnet10t", num_classes=3)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    torch.save({"model": {}, "model_ema": averaged.state_dict(), "epoch": 3}, tmp_path / "model.pth")
    _assert_equal(create_timm_model("resnet10t", str(tmp_path / "model.pth")), model)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_old_weights_without_the_counters_of_batch_normalisation_are_read(tmp_path, prefix):
    model, path = create_timm_model("resnet10t", num_classes=3), str(tmp_path / "old.pth")
    state = {prefix + name: each for name, each in model.state_dict().items() if "num_batches_tracked" not in name}
    torch.save(state, path)
    _assert_equal(create_timm_model("resnet10t", path), model)
    assert num_classes_of({"name": "resnet10t", "weights_path": path}) == 3


def test_torchvisions_weights_give_the_same_logits(tmp_path):
    theirs = torchvision.models.resnet18(num_classes=7).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = create_timm_model("resnet18", str(tmp_path / "resnet18.pth")).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_a_lightning_checkpoint_is_read_without_its_prefix_and_extras(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    model = create_timm_model("resnet10t", num_classes=3)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model
            self.criterion = torch.nn.CrossEntropyLoss(weight=torch.ones(3))

    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=0)
    trainer.strategy.connect(Module())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    _assert_equal(create_timm_model("resnet10t", str(tmp_path / "last.ckpt")), model)


@pytest.mark.parametrize("prefix", ["net.", "model.backbone.", "_orig_mod.", "module._orig_mod."])
def test_the_prefix_of_an_outer_module_is_removed(prefix, tmp_path):
    model = create_timm_model("resnet10t", num_classes=3)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    if not prefix.startswith(("_orig", "module")):
        state["criterion.weight"] = torch.ones(3)
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": []}, tmp_path / "last.ckpt")
    _assert_equal(create_timm_model("resnet10t", str(tmp_path / "last.ckpt")), model)


def test_a_checkpoint_of_two_networks_is_refused(tmp_path):
    state = create_timm_model("resnet10t", num_classes=3).state_dict()
    both = {f"{outer}.{name}": tensor for outer in ("student", "teacher") for name, tensor in state.items()}
    torch.save({"state_dict": both}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"hold 2 networks \(student\., teacher\.\)"):
        create_timm_model("resnet10t", str(tmp_path / "last.ckpt"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_become_float32(dtype, tmp_path):
    model = create_timm_model("resnet10t", num_classes=3)
    save_file({name: each.to(dtype) for name, each in model.state_dict().items()}, tmp_path / "half.safetensors")
    loaded = create_timm_model("resnet10t", str(tmp_path / "half.safetensors"))
    assert all(each.dtype == torch.float32 for each in loaded.parameters())


@pytest.mark.parametrize(
    "name", ["resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224"]
)
def test_the_number_of_classes_is_that_of_the_weights(name, tmp_path):
    weights = str(tmp_path / "weights.safetensors")
    save_file(create_timm_model(name, num_classes=5).state_dict(), weights)
    assert create_timm_model(name, weights).num_classes == 5
    assert num_classes_of({"name": name, "weights_path": weights}) == 5
    assert num_classes_of({"name": name, "weights_path": weights, "new_classifier": 7}) == 7
    assert num_classes_of({"name": name, "pretrained": True}) == 1000


def test_the_classes_of_weights_that_do_not_fit_are_not_guessed(tmp_path):
    torch.save(create_timm_model("resnet18", num_classes=5).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"does not fit resnet14t: .* missing"):
        num_classes_of({"name": "resnet14t", "weights_path": str(tmp_path / "weights.pth")})


def test_weights_of_another_number_of_classes_than_given_are_refused(tmp_path):
    weights = str(tmp_path / "weights.safetensors")
    save_file(create_timm_model("resnet10t", num_classes=5).state_dict(), weights)
    with pytest.raises(UserError, match=r"2 of another shape \(fc.weight, fc.bias\)"):
        create_timm_model("resnet10t", weights, num_classes=10)


def test_the_image_format_is_timms():
    config = data_config_of({"name": "vit_tiny_patch16_384", "split_idx": 3, "weights_path": "not read"})
    assert config["input_size"] == (3, 384, 384)
    assert config["mean"] == (0.5, 0.5, 0.5)
    swin = {"name": "swin_tiny_patch4_window7_224", "img_size": 128, "window_size": 4, "depths": [1, 1, 1, 1]}
    assert data_config_of(swin)["input_size"] == (3, 128, 128)


def _assert_equal(loaded, model):
    pairs = zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)

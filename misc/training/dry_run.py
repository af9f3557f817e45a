"""Dry run of a config: full-size models, one step of every stage and the test, on random weights and images."""

import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchdistill.common.main_util import set_seed

from misc.config.entries import build_model, check_teacher, trained_model, without_trained_parts
from misc.devices import peak_memory
from misc.evaluation.accuracy import KILOBYTE, evaluate_classifier
from misc.evaluation.evaluate import evaluate_student, evaluation_loader
from misc.evaluation.timing import latency
from misc.training.checks import check_training, stages_of
from misc.training.loop import train
from model.backbone import Backbone
from model.split import SplitClassifier, check_trained_parts

IMAGES = 2


class RandomImages(Dataset):
    """Random images with random labels and, if wanted, random saliency maps.

    Args:
        size: of an image, (3, H, W).
        num_classes: of the labels.
        with_maps: give items like those of a data set with maps.
    """

    def __init__(self, size: tuple[int, int, int], num_classes: int, with_maps: bool):
        self.images = torch.rand(IMAGES, *size)
        self.labels = torch.randint(num_classes, (IMAGES,))
        self.maps = torch.rand(IMAGES, 1, *size[1:]) if with_maps else None

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        label = int(self.labels[index])
        if self.maps is None:
            return self.images[index], label
        return self.images[index], {"label": label, "saliency": self.maps[index]}


def without_weights(entry: dict) -> dict:
    """Return a model's entry in the config without any reference to weights."""
    entry = without_trained_parts({key: value for key, value in entry.items() if key != "src_ckpt"})
    kwargs = _untrained(entry["kwargs"])
    if "backbone" in kwargs:
        kwargs["backbone"] = _untrained(kwargs["backbone"])
    return {**entry, "kwargs": kwargs}


def _untrained(backbone: dict) -> dict:
    return {key: value for key, value in backbone.items() if key not in ("weights_path", "pretrained")}


def shrink(config: dict, size: tuple[int, int, int], num_classes: int) -> None:
    """Replace a config's data sets by random images and shorten every stage to one step; in place.

    Args:
        config: as loaded in the mode "dry_run", with the class of each data set in place of the data set.
        size: of the images, (3, H, W).
        num_classes: of the labels.
    """
    for name, kind in config["datasets"].items():
        config["datasets"][name] = RandomImages(size, num_classes, with_maps=getattr(kind, "has_maps", False))
    stages = stages_of(config["train"])
    loaders = [stage.get(name) for stage in stages for name in ("train_data_loader", "val_data_loader")]
    for loader in filter(None, [*loaders, config["test"]["test_data_loader"]]):
        loader["kwargs"] = {"batch_size": IMAGES}
    for stage in stages:
        stage["num_epochs"] = 1
        for name in ("total_steps", "epochs", "steps_per_epoch"):
            (stage.get("scheduler") or {}).get("kwargs", {}).pop(name, None)


def image_size(entry: dict) -> tuple[int, int, int]:
    """Return the input size (3, H, W) of a model's entry: its img_size argument, or that of timm's data config."""
    kwargs = entry["kwargs"].get("backbone", entry["kwargs"])
    if "img_size" in kwargs:
        return (3, kwargs["img_size"], kwargs["img_size"])
    overlay = kwargs.get("pretrained_cfg_overlay", {})
    return tuple(overlay.get("input_size", timm.get_pretrained_cfg(kwargs["name"]).input_size))


def dry_run(config: dict, models: dict[str, nn.Module], device: torch.device) -> None:
    """Print a summary of the models, train every stage for one step and test through real bytes; keep nothing.

    Args:
        config: as loaded in the mode "dry_run".
        models: built from its entries `without_weights`.
        device: where they are.
    """
    start = time.perf_counter()
    trained = trained_model(models)
    size = image_size(trained_model(config["models"]))
    text, num_classes = summary(models, size)
    print(f"Random weights, {IMAGES} random images, nothing is kept\n\n{text}\n")
    shrink(config, size, num_classes)
    check_training(config, models)
    with tempfile.TemporaryDirectory() as folder:
        train(config, models, device, Path(folder))
    loader = evaluation_loader(config)
    if isinstance(trained, SplitClassifier):
        trained.update()
        sent = KILOBYTE * evaluate_student(trained, loader, device)["sent_kb"]
        encode_ms, decode_ms = latency(trained, loader, device).values()
        print(f"test: {sent:,.0f} bytes/image (random weights), encode {encode_ms:.0f} ms, decode {decode_ms:.0f} ms")
    else:
        evaluate_classifier(trained, loader, device, "model")
    print(f"Sound. {time.perf_counter() - start:.0f} s after building, {peak_memory(device)} at most")


@torch.no_grad()
def summary(models: dict[str, nn.Module], size: tuple[int, int, int]) -> tuple[str, int]:
    """Lay out shapes, parameters and sizes of every part, and the encoder's multiply-accumulates.

    Args:
        models: by the config's names.
        size: of an image, (3, H, W).

    Returns:
        The text, and the number of classes.
    """
    trained = trained_model(models).eval()
    x = torch.zeros(1, *size, device=next(trained.parameters()).device)
    lines = [f"  image x    {_shape(x)}"]
    student = trained if isinstance(trained, SplitClassifier) else None
    if student is not None:
        y = student.encoder(x)
        h_hat = student.decoder(student.entropy_model(y))
        lines += [f"  latent y   {_shape(y)}, {y.numel():,} symbols", f"  target h   {_target(h_hat)}"]
    rows = [("part", "parameters", "float32 kB", "")]
    if student is not None:
        macs = f"{_macs(student.encoder, x) / 1e6:.1f} M multiply-accumulates"
        rows.append(_row("encoder", student.encoder, macs))
        on_edge = student.entropy_model.edge_parameters()
        networks = f"{on_edge:,} of them networks that the device runs too" if on_edge else ""
        rows.append(_row("entropy model", student.entropy_model, networks))
        rows += [_row("decoder", student.decoder), _row("tail", student.tail)]
    for name, model in models.items():
        stages = " (head and tail)" if isinstance(model, Backbone) else ""
        rows.append(_row(name.removesuffix("_model") + stages, model))
    table = ("  {:<24}{:>13}{:>14}   {}".format(*row).rstrip() for row in rows)
    return "\n".join([*lines, "", *table]), trained(x).shape[1]


def _row(name: str, module: nn.Module, remark: str = "") -> tuple[str, str, str, str]:
    count = sum(parameter.numel() for parameter in module.parameters())
    return name, f"{count:,}", f"{4 * count / 1024:,.1f}", remark


def _macs(module: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape[1:]))


def _target(h: Tensor) -> str:
    if h.ndim == 3:
        return f"{_shape(h)} (tokens x channels, prefix tokens included)"
    channels, height, width = h.shape[1:]
    return f"{height * width}x{channels} (tokens x channels; {_shape(h)})"


def try_out(config: dict, device: torch.device, seed: int) -> None:
    """Build a config's models without weights, and `dry_run` them.

    Args:
        config: as loaded in the mode "dry_run".
        device: where to put the models.
        seed: of the random weights and images.
    """
    entries = config["models"]
    check_teacher(entries.get("teacher_model"))
    trained_parts = trained_model(entries).get("kwargs", {}).get("trained_parts")
    if trained_parts is not None:
        check_trained_parts(trained_parts)
    models = {}
    for name, entry in entries.items():
        set_seed(seed)  # once per model: teacher and student get the same random backbone
        models[name] = build_model(name, without_weights(entry), device)
    dry_run(config, models, device)

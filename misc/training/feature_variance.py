"""The variance of the teacher's feature h, relative to which `RelativeRateLoss` weighs the rate."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from misc.distributed.ranks import Ranks
from misc.errors import UserError
from misc.files import write_atomically
from misc.progress import advance, progress_bar
from misc.training.checks import build_loader, loss_terms, stages_of
from model.backbone import Backbone
from model.losses import RelativeRateLoss

FILE = "feature_variance.json"
IMAGES = 1000


def set_variances(
    config: dict, models: dict[str, nn.Module], device: torch.device, run_dir: Path, ranks: Ranks
) -> None:
    """Give every RelativeRateLoss of a training that has no variance the measured one; in place.

    It is measured once, on the first stage's training images, and written into the run's folder; a resumed run reads
    it there.

    Args:
        config: as `misc.config` constructs it.
        models: by the config's names.
        device: where they are.
        run_dir: the run's folder.
        ranks: processes that share the training: the first one measures.

    Raises:
        UserError: a teacher that is not cut.
    """
    terms = [term["criterion"] for stage in stages_of(config["train"]) for term in loss_terms(stage).values()]
    waiting = [term for term in terms if term["key"] == RelativeRateLoss.__name__ and _kwargs(term)["variance"] is None]
    if not waiting:
        return
    teacher = models.get("teacher_model")
    if not isinstance(teacher, Backbone):
        raise UserError("RelativeRateLoss needs a teacher_model of the key timm_backbone, whose h it measures")
    variance = ranks.from_first(lambda: _kept_or_measured(config, teacher, device, run_dir / FILE))
    for term in waiting:
        term["kwargs"] = {**_kwargs(term), "variance": variance}


def _kwargs(term: dict) -> dict:
    return {"variance": None, **(term.get("kwargs") or {})}


def _kept_or_measured(config: dict, teacher: Backbone, device: torch.device, path: Path) -> float:
    if path.is_file():
        return json.loads(path.read_text())["variance_per_pixel"]
    first, *_ = stages_of(config["train"])
    loader_config = first["train_data_loader"]
    with torch.random.fork_rng(devices=[]):  # the training begins with the same random numbers, measured or not
        loader = build_loader(config, loader_config, "stage 1, train_data_loader")
        available = min(len(loader.dataset), len(loader) * loader_config["kwargs"]["batch_size"])
        variance, images = variance_of(teacher.head, (x for x, *_ in loader), device, available)
    print(f"Variance of h per pixel, over {images:,} training images: {variance:,.4g}", flush=True)
    write_atomically(path, json.dumps({"variance_per_pixel": variance, "images": images}).encode())
    return variance


@torch.inference_mode()
def variance_of(head: nn.Module, batches: Iterable[Tensor], device: torch.device, available: int) -> tuple[float, int]:
    """Return the variance of h over images, summed over its elements, per pixel of an image; and the number of images.

    Args:
        head: x -> h.
        batches: of images, (B, 3, H, W), all of one size; at most `IMAGES` are taken.
        device: where the head is.
        available: number of images in `batches`.
    """
    images, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    wanted = min(IMAGES, available)
    with progress_bar(None, "variance of h", wanted) as bar:
        for x in batches:
            h = head.eval()(x[: wanted - images].to(device)).cpu().double()
            images, total, squares = images + len(h), total + h.sum(0), squares + h.square().sum(0)
            advance(bar, len(h))
            if images == wanted:
                break
    if images < 2:
        raise UserError(f"the variance of h needs 2 training images or more, not {images}")
    pixels = x.shape[-2] * x.shape[-1]
    return float((squares - total.square() / images).sum() / (images - 1)) / pixels, images

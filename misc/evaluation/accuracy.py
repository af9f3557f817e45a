"""Top-1 and top-5 accuracy of classifiers and students, and the rate that the likelihoods estimate.

Several ranks may share the images: each evaluates its loader's part, and all return the results over the whole set.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import Tensor, nn
from torch.utils.data import DataLoader

from misc.distributed.ranks import ALONE, Ranks
from misc.progress import advance, progress_bar
from model.split import SplitClassifier

KILOBYTE = 1024  # as in the paper's code


@torch.no_grad()  # in inference mode, a masked convolution of CompressAI would replace its weights for good
def validate(model: nn.Module, loader: DataLoader, device: torch.device, ranks: Ranks = ALONE) -> dict[str, float]:
    """Return top-1 in percent and, for a split classifier, the bits per image that its likelihoods estimate."""
    model.eval()
    correct = images = bits = 0.0
    for x, targets, *_ in loader:
        x, labels = x.to(device), labels_of(targets).to(device)
        if isinstance(model, SplitClassifier):
            logits, batch_bits = estimate(model, x)
            bits += float(batch_bits.sum())
        else:
            logits = model(x)
        correct += int((logits.argmax(1) == labels).sum())
        images += len(x)
    correct, images, bits = ranks.sum([correct, images, bits])
    result = {"top1": 100 * correct / images}
    return {**result, "bits_per_image": bits / images} if isinstance(model, SplitClassifier) else result


def estimate(student: SplitClassifier, x: Tensor, level: int | None = None) -> tuple[Tensor, Tensor]:
    """Return logits (B, K), and the bits (B,) that the likelihoods of the rounded latents estimate, at a level."""
    y_hat, likelihoods = student.entropy_model.estimate(student.encoder(x), level)
    first, *others = (torch.log2(likelihood).flatten(1).sum(1) for likelihood in likelihoods.values())
    return student.tail(student.decoder(y_hat)), -sum(others, start=first)


def labels_of(targets: Tensor | dict) -> Tensor:
    """Return the labels of a batch; a data set with saliency maps has them under "label"."""
    return targets["label"] if isinstance(targets, dict) else targets


@dataclass
class Accuracy:
    """Top-1 and top-5 hits; with K < 5 classes, top-5 is top-K.

    Attributes:
        hits: whether the most probable class is the image's own, for each image.
        top5: number of images whose class is among the five most probable ones.
    """

    hits: list[bool] = field(default_factory=list)
    top5: int = 0

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.hits)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (B, K), labels (B,)."""
        ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        self.hits += ranked[:, 0].tolist()
        self.top5 += int(ranked.any(1).sum())

    def of_all(self, ranks: Ranks) -> "Accuracy":
        """Return the hits of all ranks, in rank order."""
        return Accuracy(ranks.gather(self.hits), int(ranks.sum([self.top5])[0]))

    def percent(self) -> tuple[float, float]:
        """Return top-1 and top-5."""
        return 100 * sum(self.hits) / self.images, 100 * self.top5 / self.images


@torch.inference_mode()
def evaluate_classifier(
    model: nn.Module, loader: DataLoader, device: torch.device, description: str, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Return images, their number, top1 and top5, in percent, and hits, whether top-1 is right for each image."""
    model.eval()
    accuracy = Accuracy()
    with progress_bar(None, description, len(loader.dataset)) as bar:
        for x, targets, *_ in loader:
            accuracy.update(model(x.to(device)), labels_of(targets).to(device))
            advance(bar, len(x) * ranks.world_size)
    accuracy = accuracy.of_all(ranks)
    top1, top5 = accuracy.percent()
    return {"images": accuracy.images, "top1": top1, "top5": top5, "hits": accuracy.hits}

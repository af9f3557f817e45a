"""CutMix and MixUp of pairs of training images."""

import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import Dataset
from torchdistill.datasets.registry import register_dataset_wrapper
from torchdistill.datasets.wrapper import BaseDatasetWrapper
from torchvision.transforms import v2


@register_dataset_wrapper
class MixedPairs(BaseDatasetWrapper):
    """Mix each image, with a given probability, with the one read before it, by CutMix or MixUp.

    CutMix: Yun et al. 2019, https://arxiv.org/abs/1905.04899; MixUp: Zhang et al. 2018, https://arxiv.org/abs/1710.09412;
    both are torchvision's. Items are mixed in the data-loading workers, without reading any further image.

    Args:
        images: items are (image (3, H, W), class index).
        num_classes: length of the targets.
        alpha: parameter of the Beta distribution of an image's share.
        probability: of an image to be mixed.

    An item is (image (3, H, W), probabilities (num_classes,), {}), as torchdistill's wrappers give it.
    """

    def __init__(self, images: Dataset, num_classes: int, alpha: float = 1.0, probability: float = 0.5) -> None:
        super().__init__(images)
        self.num_classes = num_classes
        self.probability = probability
        kwargs = {"num_classes": num_classes, "alpha": alpha}
        self.mix = v2.RandomChoice([v2.CutMix(**kwargs), v2.MixUp(**kwargs)])
        self._before: tuple[Tensor, int] | None = None

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, dict]:
        image, label = self.org_dataset[index]
        partner, partner_label = self._before or (image, label)
        self._before = image, label
        if torch.rand(()) >= self.probability:
            return image, one_hot(torch.tensor(label), self.num_classes).float(), {}
        images, targets = self.mix(torch.stack([image, partner]), torch.tensor([label, partner_label]))
        return images[0], targets[0], {}

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

from misc.deploy.edge_client import STEPS
from misc.deploy.transform_steps import transform_steps
from misc.errors import UserError

TAIL = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True))
NORMALIZE = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    "head",
    [
        [],
        [v2.Resize(64), v2.CenterCrop(56)],
        [v2.Resize(33, v2.InterpolationMode.BICUBIC)],
        [v2.Resize((30, 50)), v2.CenterCrop((60, 40))],
    ],
)
@pytest.mark.parametrize("tail", [TAIL, (*TAIL, NORMALIZE)])
def test_the_client_follows_the_steps_to_the_same_bits(head, tail):
    transform = v2.Compose([*head, *tail])
    for size in [(64, 64), (90, 71), (37, 200)]:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
        x = image
        for step in transform_steps(transform):
            x = STEPS[step["op"]](x, **{name: value for name, value in step.items() if name != "op"})
        assert x.dtype == np.float32 and np.array_equal(x, transform(image).numpy())


@pytest.mark.parametrize(
    "transform, named",
    [
        (v2.Resize(4), "Resize"),
        (v2.Compose([v2.RandomHorizontalFlip(), *TAIL]), "RandomHorizontalFlip"),
        (v2.Compose([v2.Resize(4, max_size=9), *TAIL]), "Resize"),
        (v2.Compose([*TAIL, v2.Resize(4)]), "Resize"),
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32)]), "ToDtype"),
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float16, scale=True)]), "ToDtype"),
        (v1.Compose([v1.ToTensor()]), "ToTensor"),
        (v2.Compose([v2.ToImage(), NORMALIZE, *TAIL[1:]]), "normalise"),
        (v2.Compose([v2.Resize(4)]), "scale"),
    ],
)
def test_what_has_no_such_form_is_refused_by_name(transform, named):
    with pytest.raises(UserError, match=named) as error:
        transform_steps(transform)
    assert "\n" not in str(error.value)

"""The sketch of the Jacobian against the Jacobian itself."""

import torch
from torch import nn

from saliency_maps.cam_prep.methods import sensitivity
from saliency_maps.cam_prep.methods.layout import Layout
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper
from saliency_maps.cam_prep.methods.sensitivity import directions, squared_jacobians
from saliency_maps.cam_prep.methods.target_layers import TargetLayer


def small_model() -> tuple[nn.Sequential, TargetLayer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 5, 3), nn.GELU(), nn.Flatten(), nn.Linear(45, 3))
    model = model.eval().requires_grad_(False)
    return model, TargetLayer("0", model[0], Layout("NCHW", (5, 5)))


def test_equals_products_with_the_jacobian():
    model, layer = small_model()
    images = torch.randn(2, 3, 11, 11)
    (found,) = squared_jacobians(model, [layer], images)
    for image, squared in zip(images, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(model[1:], model[0](image[None]))[0, :, 0]
        products = torch.einsum("dk,kchw->dchw", directions(3), jacobian)
        torch.testing.assert_close(squared, products.square().mean(0))


def test_all_directions_give_the_squared_norms_of_the_columns(monkeypatch):
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    monkeypatch.setattr(sensitivity, "DRAWS", len(every))
    monkeypatch.setattr(sensitivity, "directions", lambda num_classes: every)
    model, layer = small_model()
    image = torch.randn(1, 3, 11, 11)
    (found,) = squared_jacobians(model, [layer], image)
    jacobian = torch.autograd.functional.jacobian(model[1:], model[0](image))[0, :, 0]
    torch.testing.assert_close(found[0], jacobian.square().sum(0))


def test_a_map_is_high_where_the_classifier_looks_and_does_not_depend_on_the_label():
    model, layer = small_model()
    with torch.no_grad():
        model[4].weight.view(3, 5, 3, 3)[..., 1:] = 0  # nothing counts but the left column
    mapper = SaliencyMapper(model, [layer], "Sensitivity", (5, 5))
    images = torch.randn(2, 3, 11, 11)
    maps = mapper(images, torch.tensor([0, 1]))
    assert (maps[..., 3:] == 0).all() and (maps.amax((1, 2)) > 0.99).all()
    torch.testing.assert_close(maps, mapper(images, None))

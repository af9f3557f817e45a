"""Maps against pytorch-grad-cam, and the cost of making them: a cut graph and no gradient on parameters."""

import copy

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from saliency_maps.cam_prep.methods.activations import activations, activations_and_gradients
from saliency_maps.cam_prep.methods.cam_methods import CAM_METHODS
from saliency_maps.cam_prep.methods.guided_backpropagation import guided_backpropagation
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper, min_max, replace_useless
from saliency_maps.cam_prep.methods.target_layers import select_target_layers

SIZE = (64, 64)


def cases(wanted) -> list:
    return [
        pytest.param(name, mix_layers, id=f"{name}-{'mixed' if mix_layers else 'one-layer'}")
        for name, method in CAM_METHODS.items()
        for mix_layers in (False, True)
        if wanted(method) and not method.uses_jacobian
    ]


SUMMED = cases(lambda method: not method.always_projects)
PROJECTED = cases(lambda method: True)


def oracle(teacher, layers, name, images, labels, eigen_smooth=False) -> np.ndarray:
    reshape = layers[0].channels_first
    with torch.enable_grad():
        teacher.requires_grad_(True)
        cam: BaseCAM = getattr(pytorch_grad_cam, name)(teacher, [layer.module for layer in layers], reshape)
        maps = cam(images, [ClassifierOutputTarget(int(label)) for label in labels], eigen_smooth=eigen_smooth)
    cam.activations_and_grads.release()
    teacher.zero_grad()
    assert (maps.max(axis=(1, 2)) > 0.9).sum() >= 2, "most maps are empty, so that equality says nothing"
    return maps


def exact_projection(features: np.ndarray) -> np.ndarray:
    """The principal component by a float64 SVD, larger extreme positive."""
    maps = []
    for image in np.nan_to_num(features.astype(np.float64)):
        positions = image.reshape(image.shape[0], -1).T
        positions = positions - positions.mean(axis=0)
        projection = positions @ np.linalg.svd(positions, full_matrices=False)[2][0]
        maps.append((projection * np.sign(projection[np.abs(projection).argmax()])).reshape(image.shape[1:]))
    return np.stack(maps)


@pytest.mark.parametrize(("name", "mix_layers"), SUMMED)
def test_summed_maps_equal_pytorch_grad_cam(teacher, images, labels, name, mix_layers):
    layers = select_target_layers(teacher, mix_layers)
    expected = oracle(teacher, layers, name, images, labels)
    maps = SaliencyMapper(teacher, layers, name, SIZE)(images, labels)
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4, atol=1e-4 * expected.max())


@pytest.mark.parametrize(("name", "mix_layers"), PROJECTED)
def test_projected_maps_equal_an_exact_svd(teacher, images, labels, name, mix_layers, monkeypatch):
    """pytorch-grad-cam's own maps once its float32 SVD of arbitrary sign gives way to the exact one."""
    for module in list(vars(pytorch_grad_cam).values()):
        if hasattr(module, "get_2d_projection"):
            monkeypatch.setattr(module, "get_2d_projection", exact_projection)
    layers = select_target_layers(teacher, mix_layers)
    expected = oracle(teacher, layers, name, images, labels, eigen_smooth=True)
    maps = SaliencyMapper(teacher, layers, name, SIZE, eigen_smooth=True)(images, labels)
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_guided_backpropagation_equals_pytorch_grad_cam(resnet, images, labels):
    guide = GuidedBackpropReLUModel(copy.deepcopy(resnet), "cpu")
    expected = [guide(image[None], int(label)) for image, label in zip(images, labels, strict=True)]
    gradients = guided_backpropagation(resnet.requires_grad_(False), images, labels)
    np.testing.assert_allclose(gradients.permute(0, 2, 3, 1).numpy(), np.stack(expected), rtol=1e-4, atol=1e-7)


def test_guided_gelu_keeps_its_output_and_lets_positive_gradients_of_positive_inputs_pass():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.GELU(), torch.nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, 2.0, -3.0, 4.0], [0.0] * 4]))
    x = torch.tensor([[[[1.0, -1.0], [2.0, 3.0]]]])
    assert guided_backpropagation(model, x, torch.tensor([0])).tolist() == [[[[1.0, 0.0], [0.0, 4.0]]]]
    assert not model[1]._forward_hooks


@pytest.mark.parametrize("per_layer", [False, True])
def test_a_guided_map_is_the_map_times_the_scaled_guide_and_scaled_again(resnet, images, labels, per_layer):
    layers = select_target_layers(resnet, mix_layers=True)
    plain = SaliencyMapper(resnet, layers, "GradCAM", SIZE, per_layer=per_layer)(images, labels)
    guided = SaliencyMapper(resnet, layers, "GradCAM", SIZE, per_layer=per_layer, guided=True)(images, labels)
    guide = min_max(guided_backpropagation(resnet, images, labels).mean(dim=1))
    product = plain * (guide[:, None] if per_layer else guide)
    assert product.amax((-1, -2)).max() < 0.9  # so that eight bits would be few
    expected = (product / product.amax((-1, -2), keepdim=True)).nan_to_num(0)  # of empty maps
    assert expected.any(dim=-1).any(dim=-1).any()
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["XGradCAM", "EigenCAM"])
def test_without_labels_the_predicted_class_is_explained(resnet, images, name):
    layers = select_target_layers(resnet)
    with torch.no_grad():
        predicted = resnet(images).argmax(dim=1)
    mapper = SaliencyMapper(resnet, layers, name, SIZE)
    torch.testing.assert_close(mapper(images, None), mapper(images, predicted))


def test_maps_per_layer_have_the_mean_that_mixing_scales(teacher, images, labels):
    layers = select_target_layers(teacher, mix_layers=True)
    each = SaliencyMapper(teacher, layers, "XGradCAM", SIZE, eigen_smooth=True, per_layer=True)(images, labels)
    assert each.shape == (4, 3, *SIZE)
    mixed = SaliencyMapper(teacher, layers, "XGradCAM", SIZE, eigen_smooth=True)(images, labels)
    torch.testing.assert_close(min_max(each.mean(dim=1)), mixed)


def test_lower_precision_changes_a_map_little(resnet, images, labels):
    layers = select_target_layers(resnet)
    exact = SaliencyMapper(resnet, layers, "GradCAM", SIZE)(images, labels)
    lower = SaliencyMapper(resnet, layers, "GradCAM", SIZE, autocast=torch.bfloat16)(images, labels)
    assert lower.dtype == torch.float32 and 0 < (lower - exact).abs().mean() < 0.05


def test_time_is_counted_by_kind(resnet, images, labels):
    mapper = SaliencyMapper(resnet, select_target_layers(resnet), "GradCAM", SIZE)
    mapper(images, labels)
    assert set(mapper.clock.seconds) == {"forward", "backward", "projection"} and min(mapper.clock.seconds.values()) > 0


def test_maps_of_a_batch_equal_maps_one_by_one(teacher, images, labels):
    mapper = SaliencyMapper(teacher, select_target_layers(teacher, True), "XGradCAM", (28, 28), eigen_smooth=True)
    together = mapper(images, labels)
    alone = torch.cat([mapper(images[i : i + 1], labels[i : i + 1]) for i in range(len(images))])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_a_map_has_the_requested_size_and_range(teacher, images, labels):
    maps = SaliencyMapper(teacher, select_target_layers(teacher), "GradCAM", (28, 20))(images, labels)
    assert maps.shape == (4, 28, 20)
    assert maps.min() >= 0 and maps.max() <= 1


def test_the_graph_begins_at_the_first_target_layer(resnet, images, labels):
    layers = select_target_layers(resnet, mix_layers=True)
    SaliencyMapper(resnet, layers, "GradCAM", SIZE)
    seen = {}
    handles = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.requires_grad})
        )
        for name, module in resnet.named_modules()
    ]
    recorded, gradients = activations_and_gradients(resnet, layers, images, labels)
    for handle in handles:
        handle.remove()
    assert not seen["conv1"] and not seen["layer1.0.act1"]
    assert seen["layer2.0.conv1"] and seen["fc"]
    assert all(parameter.grad is None for parameter in resnet.parameters())
    assert not any(tensor.requires_grad for tensor in [*recorded, *gradients])


def test_no_hook_stays_on_the_teacher(teacher, images, labels):
    layers = select_target_layers(teacher, mix_layers=True)
    SaliencyMapper(teacher, layers, "XGradCAM", SIZE)(images, labels)
    SaliencyMapper(teacher, layers, "EigenCAM", SIZE)(images, labels)
    assert not any(layer.module._forward_hooks for layer in layers)


def test_an_output_changed_in_place_is_recorded_as_it_was(resnet, images, labels):
    SaliencyMapper(resnet, [], "GradCAM", SIZE)
    (layer,) = select_target_layers(resnet, target_layer="layer3.0.bn2")
    recorded = activations(resnet, [layer], images)
    with_graph, _ = activations_and_gradients(resnet, [layer], images, labels)
    assert recorded[0].min() < 0
    torch.testing.assert_close(recorded[0], with_graph[0])


def test_min_max_leaves_a_constant_map_empty():
    maps = min_max(torch.tensor([[[2.0, 2.0]], [[1.0, 5.0]]]))
    torch.testing.assert_close(maps, torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]))


def test_a_map_that_says_nothing_becomes_uniform():
    maps = torch.tensor([[[0.0, 0.0]], [[0.0, torch.nan]], [[torch.inf, 0.0]], [[0.0, 1.0]]])
    replaced = replace_useless(maps)
    torch.testing.assert_close(replaced, torch.tensor([[[0.5, 0.5]]] * 3 + [[[0.0, 1.0]]]))

"""The library's own methods: what they give by hand, reproducibly, and the names by which they are chosen."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from misc.errors import UserError
from saliency_maps.cam_prep.methods import library
from saliency_maps.cam_prep.methods.cam_methods import CAM_METHODS
from saliency_maps.cam_prep.methods.library import FULL_GRAD, SaliencyTypes, library_maps, library_methods
from saliency_maps.cam_prep.methods.mapper import SaliencyMapper, min_max
from saliency_maps.cam_prep.methods.projection import first_principal_component
from saliency_maps.cam_prep.methods.target_layers import select_target_layers
from tests.saliency_maps.conftest import build_resnet, build_swin

SIZE = (64, 64)


@pytest.fixture
def images(images) -> torch.Tensor:
    """Two are enough, as some methods run the network for every channel of every image."""
    return images[:2]


@pytest.fixture
def labels(labels) -> torch.Tensor:
    return labels[:2]


@pytest.fixture(params=[build_resnet, build_swin], ids=["resnet", "swin"])
def network(request) -> torch.nn.Module:
    torch.manual_seed(0)
    return request.param().eval()


def by_hand(network, layers, name, images, labels, eigen_smooth) -> np.ndarray | None:
    """Return the maps as a user of the library makes them; None where the library fails."""
    network = copy.deepcopy(network)
    modules = [network.get_submodule(layer.name) for layer in layers]
    cam = getattr(pytorch_grad_cam, name)(network, modules, layers[0].channels_first if layers else None)
    if name == "AblationCAM" and layers[0].layout.order != "NCHW":
        cam.ablation_layer = AblationLayerVit()
    try:
        if name == "FinerCAM":
            pairs = zip(images.split(1), labels.tolist(), strict=True)
            return np.concatenate([cam(image, eigen_smooth=eigen_smooth, target_idx=label) for image, label in pairs])
        return cam(images, [ClassifierOutputTarget(label) for label in labels.tolist()], eigen_smooth=eigen_smooth)
    except (RuntimeError, ValueError):
        return None


def layers_of(network, name, mix_layers):
    return [] if name == FULL_GRAD else select_target_layers(network, mix_layers)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:invalid value")
@pytest.mark.parametrize("mix_layers", [False, True], ids=["one-layer", "mixed"])
@pytest.mark.parametrize("name", library_methods())
def test_maps_are_those_that_the_library_gives_by_hand(network, images, labels, name, mix_layers, monkeypatch):
    layers = layers_of(network, name, mix_layers)
    monkeypatch.setattr(library.zlib, "crc32", lambda content: 7)
    np.random.seed(7)
    expected = by_hand(network, layers, name, images, labels, eigen_smooth=False)
    if expected is None:
        assert name == "ShapleyCAM"
        with pytest.raises(UserError, match="ShapleyCAM does not run on"):
            library_maps(name, network, layers, images, labels)
        return
    maps = library_maps(name, network, layers, images, labels)
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert maps.shape == (2, *SIZE) and maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1
    assert maps.max() > 0.9 or name == "FEM"  # no value of so small a layer stands out by two standard deviations
    assert not any(module._forward_hooks for module in network.modules())


def exact_projection(features: np.ndarray) -> np.ndarray:
    return first_principal_component(torch.from_numpy(features)).numpy()


@pytest.mark.parametrize("name", ["AblationCAM", "FullGrad", "GradCAMElementWise", "ScoreCAM"])
def test_principal_components_have_the_defined_sign(network, images, labels, name, monkeypatch):
    """As by hand once the library's SVD of arbitrary sign gives way; its other functions stay."""
    layers = layers_of(network, name, mix_layers=False)
    maps = library_maps(name, network, layers, images, labels, eigen_smooth=True)
    assert pytorch_grad_cam.base_cam.get_2d_projection is not exact_projection
    for module in list(vars(pytorch_grad_cam).values()):
        if hasattr(module, "get_2d_projection"):
            monkeypatch.setattr(module, "get_2d_projection", exact_projection)
    expected = by_hand(network, layers, name, images, labels, eigen_smooth=True)
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_random_weights_depend_on_the_images_alone(resnet, images, labels):
    network = copy.deepcopy(resnet).requires_grad_(True)
    layers = select_target_layers(network)
    state = np.random.get_state()[1].copy()
    first, second, other = (
        library_maps("RandomCAM", network, layers, batch, labels) for batch in (images, images, images + 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("name", ["AblationCAM", "FinerCAM", FULL_GRAD])
def test_without_labels_the_predicted_class_is_explained(network, images, name):
    if name not in library_methods():
        pytest.skip("not in this release")
    predicted = network(images).argmax(dim=1)
    mapper = SaliencyMapper(network, layers_of(network, name, False), name, SIZE)
    torch.testing.assert_close(mapper(images, None), mapper(images, predicted), rtol=1e-4, atol=1e-4)


def test_maps_per_layer_are_those_of_each_layer_alone(network, images, labels):
    layers = select_target_layers(network, mix_layers=True)
    each = SaliencyMapper(network, layers, "ScoreCAM", (28, 20), per_layer=True)(images, labels)
    assert each.shape == (2, 3, 28, 20)
    for layer, maps in zip(layers, each.unbind(dim=1), strict=True):
        alone = SaliencyMapper(network, [layer], "ScoreCAM", (28, 20))(images, labels)
        torch.testing.assert_close(min_max(maps), alone)


@pytest.mark.parametrize("name", ["ScoreCAM", FULL_GRAD])
def test_lower_precision_changes_a_map_little(network, images, labels, name):
    layers = layers_of(network, name, mix_layers=False)
    exact = SaliencyMapper(network, layers, name, SIZE)(images, labels)
    lower = SaliencyMapper(network, layers, name, SIZE, autocast=torch.bfloat16)(images, labels)
    assert lower.dtype == torch.float32 and 0 < (lower - exact).abs().mean() < 0.05


def test_the_names_are_the_fast_methods_and_every_other_method_of_the_library():
    subclasses = {
        name
        for name, member in vars(pytorch_grad_cam).items()
        if isinstance(member, type) and issubclass(member, BaseCAM)
    }
    names = list(SaliencyTypes())
    assert len(set(names)) == len(names) and names[: len(CAM_METHODS)] == list(CAM_METHODS)
    assert subclasses <= set(names)
    assert not {"GuidedBackpropReLUModel", "ActivationsAndGradients", "DeepFeatureFactorization"} & set(names)
    assert all(name in SaliencyTypes() for name in names) and "GradCAMM" not in SaliencyTypes()


def test_fast_methods_do_not_import_the_library():
    code = (
        "import sys; from saliency_maps.cam_prep.cam_map_generation import parse_args;"
        "parse_args(['--model=m', '--input=i', '--output=o', '--saliency_type=GradCAM']);"
        "assert not {'pytorch_grad_cam', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_library_that_cannot_be_imported_is_one_line(monkeypatch):
    library_methods.cache_clear()
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match=r"cannot be imported .* or choose one of GradCAM, "):
        library_methods()

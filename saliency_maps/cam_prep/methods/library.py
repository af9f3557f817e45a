"""Methods run through pytorch-grad-cam itself: all of the installed release that `CAM_METHODS` does not compute faster.

The library (https://github.com/jacobgil/pytorch-grad-cam) is imported when one of them is asked for, no earlier.
"""

import contextlib
import functools
import inspect
import io
import sys
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from misc.errors import UserError
from saliency_maps.cam_prep.methods.cam_methods import CAM_METHODS
from saliency_maps.cam_prep.methods.projection import first_principal_component
from saliency_maps.cam_prep.methods.target_layers import TargetLayer

FULL_GRAD = "FullGrad"  # finds its own layers: every convolution and batch normalisation with a bias
# What every method of the library takes, whether it derives from BaseCAM or wraps a class that does.
_INPUTS = {"input_tensor", "targets", "eigen_smooth"}


class SaliencyTypes:
    """The names of all methods; the library is imported only when it has to tell."""

    def __contains__(self, name: object) -> bool:
        return name in CAM_METHODS or name in library_methods()

    def __iter__(self) -> Iterator[str]:
        return iter((*CAM_METHODS, *library_methods()))


@functools.cache
def library_methods() -> dict[str, type]:
    """Return the library's methods by name, without those of `CAM_METHODS`.

    Raises:
        UserError: the library cannot be imported.
    """
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise UserError(
            f"pytorch-grad-cam cannot be imported ({error}): install requirements.txt, or choose one of "
            f"{', '.join(CAM_METHODS)}"
        ) from None
    exported = inspect.getmembers(pytorch_grad_cam, inspect.isclass)
    return {name: member for name, member in exported if name not in CAM_METHODS and _is_method(member)}


def _is_method(member: type) -> bool:
    forward = getattr(member, "forward", None)
    return forward is not None and inspect.signature(forward).parameters.keys() >= _INPUTS


def library_maps(
    name: str,
    model: nn.Module,
    layers: Sequence[TargetLayer],
    images: Tensor,
    labels: Tensor | None,
    eigen_smooth: bool = False,
) -> Tensor:
    """Return the library's maps; equal batches give equal maps, random weights included.

    Args:
        name: one of `library_methods()`.
        model: in eval mode, (B, 3, H, W) -> (B, classes); its parameters require gradients.
        layers: target layers of `model`, all of one layout; none for `FULL_GRAD`.
        images: (B, 3, H, W), normalised.
        labels: (B,), class indices; None takes the class that the model predicts.
        eigen_smooth: principal component in place of the sum, where the method knows the option.

    Returns:
        (B, H, W) in [0, 1], possibly NaN, on the device of the images.

    Raises:
        UserError: the method does not run on these layers.
    """
    # PyTorch's faster attention kernels have no second derivative, which ShapleyCAM takes.
    attention = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    # Some methods draw a progress bar for each image, and one that failed may print a traceback when it is freed.
    silence = contextlib.redirect_stderr(io.StringIO())
    failure = None
    with silence, torch.enable_grad(), attention, _seeded(images), _defined_sign():
        try:
            maps = _call(_build(name, model, layers), images, labels, eigen_smooth)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # every method has limits of its own: ShapleyCAM takes one layer, channels first
            failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if failure is not None:
        where = ", ".join(layer.name for layer in layers) or "this teacher"
        raise UserError(
            f"pytorch-grad-cam's {name} does not run on {where} ({failure}): choose another layer or method"
        )
    return torch.from_numpy(maps).to(images.device)


def _build(name: str, model: nn.Module, layers: Sequence[TargetLayer]) -> object:
    """Return the library's object; its hooks leave the model with it."""
    method = library_methods()[name]
    options = {}
    if "ablation_layer" in inspect.signature(method).parameters and layers[0].layout.order != "NCHW":
        from pytorch_grad_cam.ablation_layer import AblationLayerVit

        options["ablation_layer"] = AblationLayerVit()  # channels last

    def channels_first(output: Tensor) -> Tensor:
        # NumPy, in which the library computes, has no bfloat16.
        return (layers[0].channels_first(output) if layers else output).float()

    return method(model, [layer.module for layer in layers], channels_first, **options)


def _call(cam: object, images: Tensor, labels: Tensor | None, eigen_smooth: bool) -> np.ndarray:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if labels is None:
        return cam.forward(images, None, eigen_smooth)
    if "target_idx" in inspect.signature(cam.forward).parameters:
        # FinerCAM compares a class with those nearest to it, and only where it is given one class for the whole batch.
        singles = zip(images.split(1), labels.tolist(), strict=True)
        return np.concatenate([cam.forward(image, None, eigen_smooth, target_idx=label) for image, label in singles])
    return cam.forward(images, [ClassifierOutputTarget(label) for label in labels.tolist()], eigen_smooth)


@contextlib.contextmanager
def _seeded(images: Tensor) -> Iterator[None]:
    """Seed NumPy's generator, from which the library draws, by the images, so that a repeated run gives equal maps."""
    state = np.random.get_state()
    np.random.seed(zlib.crc32(images.detach().cpu().numpy().tobytes()))
    try:
        yield
    finally:
        np.random.set_state(state)


@contextlib.contextmanager
def _defined_sign() -> Iterator[None]:
    """Give the library's principal components the sign of `first_principal_component`; its own is arbitrary."""
    projection = "get_2d_projection"
    modules = [module for name, module in sys.modules.items() if name.startswith("pytorch_grad_cam.")]
    originals = {module: getattr(module, projection) for module in modules if hasattr(module, projection)}
    for module in originals:
        setattr(module, projection, lambda features: first_principal_component(torch.from_numpy(features)).numpy())
    try:
        yield
    finally:
        for module, original in originals.items():
            setattr(module, projection, original)

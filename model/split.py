"""The composed student: encoder and entropy model at the edge; decoder and the frozen tail at the server.

                   edge                 |                       server
                                        |
x ──> encoder g_a ──> y ──> entropy ──> bits ──> entropy ──> y_hat ──> decoder g_s ──> h_hat ──> tail ──> logits
                            model       |        model
                                        |
x ──────────────────────────────────────────────────────> teacher's head ──> h   (in training only)

x      image, (B, 3, H, W), normalised        h      teacher's feature at the cut, (B, C, H', W')
y      latent, (B, 48, H / 8, W / 8)          h_hat  the decoder's output, of h's shape
y_hat  the latent as decoded                  s      saliency map, (B, 1, H, W) in [0, 1]
z      hyper latent, z_hat as decoded         lmbda  weight of the RATE: larger is smaller files
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchdistill.models.registry import register_model

from misc.errors import UserError, did_you_mean
from model.backbone import create_backbone
from model.blueprint import decoder_for
from model.entropy import CodedModel, EntropyModel
from model.halves import EdgeHalf, ServerHalf
from model.weights import load_weights, read_state_dict, read_student

PARTS = ("encoder", "entropy_model", "decoder")


class SplitClassifier(EdgeHalf):
    """Encoder and entropy model on the edge; entropy model, decoder and the teacher's own tail on the server."""

    def __init__(self, encoder: nn.Module, entropy_model: EntropyModel, decoder: nn.Module, tail: nn.Module):
        super().__init__(encoder, entropy_model)
        self.decoder = decoder
        self.tail = tail

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 logits (B, num_classes); the latent gets noise in training and is rounded in evaluation."""
        y_hat = self.entropy_model(self.encoder(x))
        return self.tail(self.decoder(y_hat)).float()

    def decode(self, streams: list[bytes]) -> Tensor:
        """Return logits (B, num_classes) from streams of images of one size; raises what `ServerHalf` raises."""
        return ServerHalf(self.entropy_model, self.decoder, self.tail, self.fingerprint()).decode(streams)

    def edge_parameters(self) -> int:
        """Return the number of parameters on the device: g_a and what the entropy model needs besides."""
        return sum(p.numel() for p in self.encoder.parameters()) + self.entropy_model.edge_parameters()


@register_model(key="split_classifier")
def create_split_classifier(
    encoder: nn.Module,
    entropy_model: EntropyModel,
    decoder: nn.Module | str,
    backbone: dict,
    trained_parts: dict | None = None,
    blueprint: dict | None = None,
) -> SplitClassifier:
    """Compose a student around the tail of a backbone.

    Args:
        encoder: g_a.
        entropy_model: the prior.
        decoder: g_s, whose output must have the shape of the backbone's feature at the cut; or "auto".
        backbone: arguments of `model.backbone.create_backbone`.
        trained_parts: arguments of `load_parts`, to start from parts of another student.
        blueprint: with "auto", arguments of the decoder (`model.blueprint.decoder_for`).

    Raises:
        UserError: the parts do not fit each other; the message gives both shapes.
    """
    cut_backbone = create_backbone(**backbone)
    g_s = decoder_for(cut_backbone, entropy_model.latent_channels, decoder, blueprint)
    student = SplitClassifier(encoder, entropy_model, g_s, cut_backbone.tail)
    if trained_parts is not None:
        check_trained_parts(trained_parts)
        load_parts(student, **trained_parts)
    _check_shapes(student, cut_backbone.head, cut_backbone.data_config["input_size"])
    return student


def check_trained_parts(trained_parts: dict) -> None:
    """Check the arguments of `load_parts`.

    Raises:
        UserError: a missing or unknown key, or a part that no student has.
    """
    for key in trained_parts:
        if key not in ("weights_path", "modules"):
            raise UserError(f"trained_parts has no '{key}'{did_you_mean(key, ('weights_path', 'modules'))}")
    if len(trained_parts) < 2:
        raise UserError("trained_parts needs weights_path and modules")
    for name in trained_parts["modules"]:
        if name not in PARTS:
            raise UserError(f"trained_parts: a student has no part '{name}'{did_you_mean(name, PARTS)}")


def load_parts(student: SplitClassifier, weights_path: str, modules: list[str]) -> None:
    """Load parts of a student trained for any backbone, including the coder's integer tables.

    Args:
        student: the student to load into.
        weights_path: the other student's weights.
        modules: any of encoder, entropy_model, decoder.

    Raises:
        UserError: the weights are missing or do not fit a part.
    """
    state = read_state_dict(weights_path)
    wanted = {key: tensor for key, tensor in state.items() if key.startswith(tuple(f"{name}." for name in modules))}
    load_weights(StudentParts(student, modules), weights_path, wanted)


class StudentParts(CodedModel):
    """Some parts of a student, under their names there, as a model that loads coder tables too."""

    def __init__(self, student: SplitClassifier, modules: list[str]):
        super().__init__()
        for name in modules:
            self.add_module(name, getattr(student, name))


@torch.no_grad()
def _check_shapes(student: SplitClassifier, head: nn.Module, input_size: tuple[int, int, int]) -> None:
    was_training = student.training
    student.eval(), head.eval()
    x = torch.zeros(1, *input_size)
    wanted = tuple(head(x).shape[1:])
    try:
        given = tuple(student.decoder(student.entropy_model(student.encoder(x))).shape[1:])
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"encoder, entropy model and decoder do not fit each other: {error}".splitlines()[0]) from error
    if given != wanted:
        raise UserError(
            f"at input {input_size} the decoder gives h_hat of {given}, but the backbone's cut wants h of {wanted}: "
            "change the decoder's out_channels or feature_size"
        )
    student.train(was_training)


def load_into(model: nn.Module, path: str | Path) -> None:
    """Load weights strictly; if a student's file has no tail, keep the tail of its backbone.

    Raises:
        UserError: keys or shapes that do not fit (the message lists them), or a student trained for another tail.
    """
    load_weights(model, path, read_student(path, model.tail) if isinstance(model, SplitClassifier) else None)

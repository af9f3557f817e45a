"""The two halves of a student: the edge half has no decoder, the server half no encoder."""

import hashlib
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from model.coding.bitstream import FINGERPRINT_BYTES, BitstreamError, Stream, pack, unpack
from model.coding.derived import Derived
from model.entropy import CodedModel, EntropyModel


class EdgeHalf(CodedModel):
    """Encoder and entropy model: images to streams.

    CompressAI's CompressionModel provides `update` (builds the coder's integer tables), `aux_loss`, and loading state
    dicts with or without such tables.
    """

    def __init__(self, encoder: nn.Module, entropy_model: EntropyModel):
        super().__init__()
        self.encoder = encoder
        self.entropy_model = entropy_model
        self._fingerprint: Derived[bytes] = Derived()

    @torch.inference_mode()
    def encode(self, x: Tensor) -> list[bytes]:
        """Return B self-contained streams of images (B, 3, H, W), normalised.

        Raises:
            BitstreamError: a latent with more positions than a stream may have.
            ValueError: no tables yet, or a latent that is not finite.
        """
        y = self.encoder(x)
        payloads = self.entropy_model.compress(y)
        return [pack(Stream(self.fingerprint(), tuple(y.shape[-2:]), payload)) for payload in payloads]

    def fingerprint(self) -> bytes:
        """Return the 4 bytes that identify streams of this encoder and entropy model."""
        half = nn.ModuleDict({"encoder": self.encoder, "entropy_model": self.entropy_model})
        return self._fingerprint.of(chain(half.parameters(), half.buffers()), lambda: fingerprint_of(half.state_dict()))


class ServerHalf(CodedModel):
    """Entropy model, decoder and tail: streams to logits.

    Args:
        fingerprint: of the encoder and entropy model whose streams the decoder was trained on (`fingerprint_of`).
    """

    def __init__(self, entropy_model: EntropyModel, decoder: nn.Module, tail: nn.Module, fingerprint: bytes):
        super().__init__()
        self.entropy_model = entropy_model
        self.decoder = decoder
        self.tail = tail
        self.fingerprint = fingerprint

    @torch.inference_mode()
    def decode(self, streams: list[bytes]) -> Tensor:
        """Return the logits (B, num_classes) of streams of images of one size; raises what `features` raises."""
        return self.logits(self.features(streams))

    @torch.inference_mode()
    def features(self, streams: list[bytes]) -> Tensor:
        """Return h_hat (B, C, H', W') from the streams of images of one size.

        Raises:
            BitstreamError: as `latents`, or a size that the decoder does not accept.
            ValueError: images of different sizes.
        """
        return _sized(self.decoder, self.latents(streams))

    @torch.inference_mode()
    def latents(self, streams: list[bytes]) -> Tensor:
        """Return y_hat (B, C, H, W) from the streams of images of one size.

        Raises:
            BitstreamError: damaged or hostile streams, or those of another model.
            ValueError: images of different sizes.
        """
        unpacked = list(map(unpack, streams))
        if any(stream.fingerprint != self.fingerprint for stream in unpacked):
            raise BitstreamError("the stream is of another encoder or entropy model")
        size, *others = {stream.size for stream in unpacked}
        if others:
            raise ValueError("one call decodes images of one size")
        return self.entropy_model.decompress([stream.payload for stream in unpacked], size)

    @torch.inference_mode()
    def logits(self, h_hat: Tensor) -> Tensor:
        """Return the tail's logits (B, num_classes).

        Raises:
            BitstreamError: a feature of a size that the tail does not accept.
        """
        return _sized(self.tail, h_hat)


def fingerprint_of(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the first 4 bytes of a SHA-256 over the tensors of encoder and entropy model, coder tables included.

    Settings that are not tensors (strides, activations, the image transform) are left out, as both sides share a
    config. Masked weights count as zero: CompressAI zeroes them in the first forward pass.

    Args:
        tensors: by their names in a student, "encoder. ..." and "entropy_model. ..."; others are ignored.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        if name.startswith(("encoder.", "entropy_model.")):
            tensor = _masked(tensors, name).detach().cpu().contiguous()
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha.update(tensor.flatten().view(torch.uint8).numpy())
    return sha.digest()[:FINGERPRINT_BYTES]


def _masked(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    mask = tensors.get(f"{name.removesuffix('weight')}mask")
    is_masked = name.endswith(".weight") and mask is not None
    return tensors[name].masked_fill(mask == 0, 0) if is_masked else tensors[name]


def _sized(network: nn.Module, x: Tensor) -> Tensor:
    """Run a network on an input whose size comes from a stream and may not be accepted."""
    try:
        return network(x)
    except torch.OutOfMemoryError:  # not the stream's fault
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BitstreamError(f"{type(network).__name__} does not take {tuple(x.shape[1:])}: {reason}") from error

"""The two halves of a student: the edge half has no decoder, the server half no encoder."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from misc.errors import UserError
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
    def encode(self, x: Tensor, level: int | None = None) -> list[bytes]:
        """Return B self-contained streams of images (B, 3, H, W), normalised.

        Args:
            x: the images.
            level: of a model of variable rate (`entropy_model.level_of` a rate); None is its middle one.

        Raises:
            BitstreamError: a latent with more positions than a stream may have.
            ValueError: no tables yet, or a latent that is not finite.
        """
        return self.pack(self.encoder(x), self.entropy_model.level_of(None) if level is None else level)

    @torch.inference_mode()
    def pack(self, y: Tensor, level: int | Sequence[int] | None) -> list[bytes]:
        """Return the streams of latents y (B, C, H, W); raises what `encode` raises.

        Args:
            y: the latents.
            level: of all or of each; None with one rate.
        """
        size, payloads = tuple(y.shape[-2:]), self.entropy_model.compress(y, level)
        levels = level if isinstance(level, Sequence) else [level] * len(y)
        fingerprint = self.fingerprint()
        return [pack(Stream(fingerprint, size, *each)) for each in zip(payloads, levels, strict=True)]

    @torch.inference_mode()
    def encode_within(self, x: Tensor, max_bytes: int) -> bytes:
        """Return the stream of one image (1, 3, H, W) at the highest level at which it has at most `max_bytes`.

        The encoder runs once; the level is found by bisection over the coder.

        Raises:
            UserError: a model of one rate, or an image whose smallest stream is longer; and what `encode` raises.
        """
        if self.entropy_model.gains is None:
            raise UserError("this student has one rate: a stream can be fitted if entropy_model has `levels`")
        y, last = self.encoder(x), self.entropy_model.gains.last
        (stream,) = highest_within(lambda levels: self.pack(y, levels), 1, last, max_bytes)
        if stream is None:
            smallest = len(self.pack(y, 0)[0])
            raise UserError(f"the smallest stream of this image has {smallest} bytes, more than {max_bytes}")
        return stream

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
        levels = [self._level(stream) for stream in unpacked]
        return self.entropy_model.decompress([stream.payload for stream in unpacked], size, levels)

    def _level(self, stream: Stream) -> int:
        gains = self.entropy_model.gains
        if (gains is None) != (stream.level is None):
            raise BitstreamError("a stream with a level of a model of one rate, or the other way round")
        if gains is not None and stream.level > gains.last:
            raise BitstreamError(f"level {stream.level} is above this model's last, {gains.last}")
        return stream.level or 0

    @torch.inference_mode()
    def logits(self, h_hat: Tensor) -> Tensor:
        """Return the tail's logits (B, num_classes).

        Raises:
            BitstreamError: a feature of a size that the tail does not accept.
        """
        return _sized(self.tail, h_hat)


def highest_within(
    encode: Callable[[list[int]], list[bytes]], images: int, last: int, max_bytes: int
) -> list[bytes | None]:
    """Return each image's stream of the highest level, 0 to `last`, that has at most `max_bytes`, by bisection.

    Args:
        encode: returns the streams of all images, given a level for each.
        images: their number.
        last: the highest level.
        max_bytes: of each stream.

    Returns:
        The streams; None for an image whose stream of level 0 is longer.
    """
    fitting = [stream if len(stream) <= max_bytes else None for stream in encode([0] * images)]
    low, high = [0] * images, [0 if stream is None else last for stream in fitting]
    while low != high:
        middle = [(below + above + 1) // 2 for below, above in zip(low, high, strict=True)]
        for image, stream in enumerate(encode(middle)):
            if low[image] == high[image]:
                continue
            if len(stream) <= max_bytes:
                low[image], fitting[image] = middle[image], stream
            else:
                high[image] = middle[image] - 1
    return fitting


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

"""A cached value computed from tensors, recomputed when one of them changes."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, cast

from torch import Tensor

Value = TypeVar("Value")


class Derived(Generic[Value]):
    """Cache a value, and recompute it when a tensor has been written to, moved or replaced.

    Writes through `tensor.data` cannot be detected. Copies and unpickled instances start empty, since the value may not
    be copyable.
    """

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []  # kept alive, as ids and addresses are reused after a tensor is freed
        self._state: list[tuple] = []
        self._value: Value | None = None

    def of(self, tensors: Iterable[Tensor], compute: Callable[[], Value]) -> Value:
        """Return `compute()`, or the cached value if no tensor has changed since."""
        tensors = list(tensors)
        state = [_state_of(tensor) for tensor in tensors]
        if not self._state or state != self._state:
            self._value = compute()
            self._tensors, self._state = tensors, state
        return cast(Value, self._value)

    def __reduce__(self):
        return Derived, ()


def _state_of(tensor: Tensor) -> tuple:
    # Inference tensors have no version counter.
    version = -1 if tensor.is_inference() else tensor._version
    return id(tensor), version, tensor.device, tensor.data_ptr()

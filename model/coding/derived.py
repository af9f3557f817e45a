"""What is computed from tensors once and for all, until one of them changes."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class Derived(Generic[Value]):
    """Keeps the last value, and computes it anew when a tensor was written to, moved or replaced.

    Writing through `tensor.data` leaves no trace and is not noticed. A copy, and what is unpickled, begins empty: the
    value may be something that cannot be copied.
    """

    def __init__(self):
        self._tensors: list[Tensor] = []  # kept alive: an address is no identity after its tensor is gone
        self._state: list[tuple] = []
        self._value: Value | None = None

    def of(self, tensors: Iterable[Tensor], compute: Callable[[], Value]) -> Value:
        """Returns `compute()`, or what it returned when the tensors were what they are now."""
        tensors = list(tensors)
        state = [_state_of(tensor) for tensor in tensors]
        if not self._state or state != self._state:
            self._value = compute()
            self._tensors, self._state = tensors, state
        return self._value

    def __reduce__(self):
        return Derived, ()


def _state_of(tensor: Tensor) -> tuple:
    # A tensor made in inference mode does not count its versions.
    version = -1 if tensor.is_inference() else tensor._version
    return id(tensor), version, tensor.device, tensor.data_ptr()

"""Simulated GPU: CPU tensors that report cuda:0 as their device and behave like GPU tensors where it matters.

They refuse to meet CPU tensors, to become numpy arrays, and to round fp16 products to fp16; float32 products under a
TF32 setting lose thirteen bits of their operands, as on the hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CARD = torch.device("cuda:0")
_MEET_ANYONE = {Tensor.__getitem__, Tensor.__setitem__, Tensor.copy_}  # GPU tensors may be indexed by CPU tensors.
_PRODUCTS = {Tensor.matmul, Tensor.__matmul__, torch.mm, torch.matmul}


class OnCard(Tensor):
    """Tensor that reports the simulated GPU as its device."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CARD
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if func is Tensor.numpy:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        if func not in _MEET_ANYONE:
            for x in _tensors((*args, *kwargs.values())):
                if not isinstance(x, OnCard) and x.ndim > 0:
                    raise RuntimeError(f"{func.__name__}: expected all tensors on one device; found cuda:0 and cpu")
        if func in _PRODUCTS:
            return _product(*args, **kwargs)
        if "device" in kwargs:
            kwargs.pop("device")
        return super().__torch_function__(func, types, args, kwargs)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments and in their lists; thousands of calls per test need this to be fast."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _moved(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    where = [torch.device(v) for v in (*args, *kwargs.values()) if isinstance(v, str | torch.device)]
    rest = [v for v in args if not isinstance(v, str | torch.device)]
    kwargs.pop("device", None)
    plain = x.as_subclass(Tensor)
    moved = plain.to(*rest, **kwargs) if rest or kwargs else plain
    card = where[0].type == "cuda" if where else isinstance(x, OnCard)
    return moved.as_subclass(OnCard) if card else moved


def _product(x: Tensor, y: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    x, y = x.as_subclass(Tensor), y.as_subclass(Tensor)
    if x.dtype == torch.float16:
        if out_dtype != torch.float32:
            raise RuntimeError("a product of fp16 operands would be rounded to fp16")
        x, y = x.float(), y.float()
    elif x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32":
        x, y = _truncated(x), _truncated(y)
    return (x @ y).as_subclass(OnCard)


def _truncated(x: Tensor) -> Tensor:
    """Cut off the last thirteen bits, as single-pass tf32 does."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


class _Factories(TorchFunctionMode):
    """Creates tensors on the simulated GPU for device="cuda:0", and lets CPU tensors move there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            del kwargs["device"]
            return func(*args, **kwargs).as_subclass(OnCard)
        return func(*args, **kwargs)


@contextmanager
def simulated_gpu() -> Iterator[None]:
    """Simulate a GPU with TF32 allowed, as many programs leave it."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with _Factories():
            yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before

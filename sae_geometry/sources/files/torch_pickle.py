"""The pickle inside a torch checkpoint, read as data.

`torch.load(weights_only=True)` would refuse hostile pickles too, but it reads every tensor to find one, trusts the
element counts a pickle claims, and allows `bytearray(10**10)`. Here the opcodes that torch.save writes for state
dictionaries are interpreted one by one. Nothing is imported or called: a name can only be one of the few below, and
each stands for a description of a tensor, a table, a list, a number or a string.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import MAX_AXES

_MAX_OPCODES = 2_000_000
_MAX_VALUES = 200_000
_MAX_DEPTH = 64

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


@dataclass(frozen=True)
class StoredStorage:
    """A run of `n_elements` numbers in the archive's member `data/<key>`."""

    key: str
    dtype: torch.dtype
    n_elements: int


@dataclass(frozen=True)
class StoredTensor:
    """A strided view of a storage."""

    storage: StoredStorage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class _Name:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Table(dict[Any, Any]):
    """What an OrderedDict in the pickle becomes."""


def read_pickle(raw: bytes, name: str) -> object:
    """The object a torch checkpoint's pickle describes, with `StoredTensor` where tensors are.

    Args:
        raw: the bytes of `data.pkl`.
        name: the file's name, for messages.

    Raises:
        SourceError: it asks for anything but tensors, tables, lists, numbers and strings, or is damaged.
    """
    try:
        return _run(raw, name)
    except SourceError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise SourceError(f"{name}: its pickle is damaged ({type(error).__name__} while reading it)") from error


def _run(raw: bytes, name: str) -> object:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    arg: Any
    for count, (op, arg, _) in enumerate(pickletools.genops(raw)):
        if count > _MAX_OPCODES:
            raise SourceError(
                f"{name}: its pickle has more than {_MAX_OPCODES:,} steps, more than any checkpoint needs"
            )
        match op.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(op.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(arg)
            case "EMPTY_DICT":
                stack.append(_Table())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(op.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "SETITEM" | "SETITEMS":
                items = since_mark() if op.name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
                table = _expect(stack[-1], dict)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    table[key if isinstance(key, int) else _expect(key, str)] = value
            case "APPEND" | "APPENDS":
                items = since_mark() if op.name == "APPENDS" else [stack.pop()]
                _expect(stack[-1], list).extend(items)
            case "GLOBAL":
                stack.append(_allowed(_Name(*str(arg).split(" ", 1)), name))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_allowed(_Name(_expect(module, str), _expect(attribute, str)), name))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                args = _expect(stack.pop(), tuple)
                stack.append(_BUILDERS[str(_expect(stack.pop(), _Name))](args))
            case "BUILD":
                stack.pop()
                _expect(stack[-1], dict)
            case "STOP":
                return stack.pop()
            case _:
                raise SourceError(f"{name}: its pickle uses {op.name}, which no checkpoint of tensors needs; refused")
    raise SourceError(f"{name}: its pickle ends before it is finished: the file is damaged")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected")
    return value


def _allowed(named: _Name, file: str) -> _Name:
    if str(named) in _BUILDERS or (named.module == "torch" and named.name in _STORAGES):
        return named
    if str(named) == "torch.storage.UntypedStorage":
        return _Name("torch", "UntypedStorage")
    if named.module == "torch" and isinstance(getattr(torch, named.name, None), torch.dtype):
        return named
    raise SourceError(
        f"{file}: its pickle wants to run {str(named)[:120]!r}, which reading tensors does not need; refused, and "
        "nothing was run. If you trust the file, re-save its state_dict as safetensors"
    )


def _storage(pid: Any) -> StoredStorage:
    tag, kind, key, _, n = _expect(pid, tuple)
    if tag != "storage" or _expect(kind, _Name).module != "torch" or type(n) is not int or n < 0:
        raise TypeError("storage expected")
    return StoredStorage(_expect(key, str), _STORAGES[kind.name], n)


def _whole(numbers: Any) -> tuple[int, ...]:
    if len(_expect(numbers, tuple)) > MAX_AXES or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a few whole numbers expected")
    return tuple(numbers)


def _tensor_v2(args: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, stride = _expect(args[0], StoredStorage), args[1], _whole(args[2]), _whole(args[3])
    return StoredTensor(storage, _whole((offset,))[0], shape, stride, storage.dtype)


def _tensor_v3(args: tuple[Any, ...]) -> StoredTensor:
    plain = _tensor_v2(args)
    named = _expect(args[6], _Name)
    dtype = _expect(getattr(torch, named.name), torch.dtype)
    return StoredTensor(plain.storage, plain.offset, plain.shape, plain.stride, dtype)


def _empty_table(args: tuple[Any, ...]) -> _Table:
    if args:
        raise TypeError("an empty table expected")
    return _Table()


_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _empty_table,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda args: _expect(args[0], StoredTensor),
    "torch.Size": lambda args: _whole(args[0]),
    "torch.device": lambda args: str(args[0])[:20],
}


def flatten(tree: object, name: str) -> dict[str, Any]:
    """Nested tables as one, keys joined by dots. A bare tensor gets the key "tensor"."""
    flat: dict[str, Any] = {}
    visits = 0

    def walk(node: object, prefix: str, depth: int) -> None:
        nonlocal visits
        visits += 1
        if visits > _MAX_VALUES:
            raise SourceError(f"{name}: it holds more than {_MAX_VALUES:,} values")
        if depth > _MAX_DEPTH:
            raise SourceError(f"{name}: its tables are nested more than {_MAX_DEPTH} deep")
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
        else:
            flat[prefix or "tensor"] = node

    walk(tree, "", 0)
    return flat

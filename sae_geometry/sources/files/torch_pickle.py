"""Read the pickle in a torch checkpoint as data.

`torch.load(weights_only=True)` refuses hostile pickles too, but it reads all tensors to return one, trusts the element
counts in the pickle, and permits `bytearray(10**10)`. This module interprets the opcodes that torch.save writes for
state dictionaries. It imports and calls nothing that a pickle names, accepts only the names in `_BUILDERS`, and
builds only tables, lists, numbers, strings and descriptions of tensors.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import MAX_AXES, MAX_NAMES, MAX_TENSORS

_MAX_OPCODES = 500_000
_MAX_VALUES = MAX_TENSORS
_MAX_DEPTH = 64
_PLAIN = (str, int, float, bool, type(None))

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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
# Tensors of these types are listed but not read: PyTorch may lack the type, or its elements are not plain numbers.
_OTHER_TYPE = re.compile(r"[A-Z][A-Za-z0-9]*Storage|(?:u?int|float|bfloat|complex|quint|qint|bits)\w*")
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


@dataclass(frozen=True)
class StoredStorage:
    """Storage of tensor elements in the archive member `data/<key>`; `dtype` is None if `kind` is unknown."""

    key: str
    dtype: torch.dtype | None
    kind: str


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a strided view of a storage; `dtype` is None if PyTorch lacks the type."""

    storage: StoredStorage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype | None

    @property
    def last(self) -> int:
        """One past the index of the last element of the storage that the tensor uses; the offset if it uses none."""
        if 0 in self.shape:
            return self.offset
        return self.offset + 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=False))


@dataclass(frozen=True)
class _Name:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """Class name, arguments and state of a pickled object, which stand for an object that is never constructed."""

    kind: str
    args: tuple[Any, ...]
    state: Any = None

    def field(self, name: str) -> Any:
        """Return the value of a field of the pickled dataclass."""
        return _expect(self.state, dict)[name]


Builder = Callable[[tuple[Any, ...]], Any]
BuilderOf = Callable[[str], Builder | None]  # It takes the name of a class or function.


def read_pickle(raw: bytes, name: str) -> object:
    """Return the object in the pickle of a torch checkpoint, with each tensor as a `StoredTensor`."""
    return _read(raw, name, _BUILDERS.get)


def read_records(raw: bytes, name: str) -> object:
    """Return the object in a pickle, with every instance of a class as a `Record`."""
    return _read(raw, name, lambda kind: _BUILDERS[kind] if kind == "torch.Size" else partial(Record, kind))


def _read(raw: bytes, name: str, builder_of: BuilderOf) -> object:
    try:
        return _run(raw, name, builder_of)
    except SourceError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SourceError(f"{name}: its pickle is damaged ({type(error).__name__} while reading it)") from error


def _run(raw: bytes, name: str, builder_of: BuilderOf) -> object:
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
            raise SourceError(f"{name}: its pickle has more than {_MAX_OPCODES:,} opcodes; refused")
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
                stack.append({})
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
                if arg > len(raw):
                    raise ValueError("the memo index exceeds the size of the pickle")
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "SETITEM" | "SETITEMS":
                items = since_mark() if op.name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
                table = _expect(stack[-1], dict)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _put(table, key, value, name)
            case "APPEND" | "APPENDS":
                items = since_mark() if op.name == "APPENDS" else [stack.pop()]
                _expect(stack[-1], list).extend(items)
            case "GLOBAL":
                stack.append(_allowed(_Name(*str(arg).split(" ", 1)), name, builder_of))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_allowed(_Name(_expect(module, str), _expect(attribute, str)), name, builder_of))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                args = _expect(stack.pop(), tuple)
                build: Any = builder_of(str(_expect(stack.pop(), _Name)))  # Calling a dtype raises TypeError.
                stack.append(build(args))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Record):
                    stack[-1].state = state
                else:
                    _expect(stack[-1], dict)
            case "STOP":
                return stack.pop()
            case _:
                raise SourceError(f"{name}: its pickle uses {op.name}, which no checkpoint of tensors needs; refused")
    raise SourceError(f"{name}: its pickle has no STOP opcode: the file is damaged")


def _put(table: dict[Any, Any], key: Any, value: Any, name: str) -> None:
    """Store a value under a key; a number becomes a string, because numbers could be chosen so that hashes collide."""
    if key is None or isinstance(key, int | float):
        key = str(key)
    if not isinstance(key, str | Record):
        raise SourceError(f"{name}: a table in its pickle has keys that are neither strings nor numbers; refused")
    if key in table:
        raise SourceError(f"{name}: a table in its pickle has two values named {str(key)[:80]!r}; refused")
    table[key] = value


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected")
    return value


def _allowed(named: _Name, file: str, builder_of: BuilderOf) -> _Name:
    if builder_of(str(named)) is not None or (named.module == "torch" and named.name in _STORAGES):
        return named
    if str(named) == "torch.storage.UntypedStorage":
        return _Name("torch", "UntypedStorage")
    if named.module == "torch" and (named.name in _DTYPES or _OTHER_TYPE.fullmatch(named.name)):
        return named
    raise SourceError(
        f"{file}: its pickle wants to run {str(named)[:120]!r}, which reading tensors does not need; refused, and "
        "nothing was run. If you trust the file, re-save its state_dict as safetensors"
    )


def _storage(pid: Any) -> StoredStorage:
    tag, kind, key, _, n = _expect(pid, tuple)
    if tag != "storage" or _expect(kind, _Name).module != "torch" or type(n) is not int or n < 0:
        raise TypeError("storage expected")
    return StoredStorage(_expect(key, str), _STORAGES.get(kind.name), kind.name)


def _whole(numbers: Any) -> tuple[int, ...]:
    if len(_expect(numbers, tuple)) > MAX_AXES or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"expected at most {MAX_AXES} non-negative integers")
    return tuple(numbers)


def _tensor_v2(args: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, stride = _expect(args[0], StoredStorage), args[1], _whole(args[2]), _whole(args[3])
    return StoredTensor(storage, _whole((offset,))[0], shape, stride, storage.dtype)


def _tensor_v3(args: tuple[Any, ...]) -> StoredTensor:
    plain, kind = _tensor_v2(args), _expect(args[6], _Name).name
    return replace(plain, storage=replace(plain.storage, kind=kind), dtype=_DTYPES.get(kind))


def _empty_table(args: tuple[Any, ...]) -> dict[Any, Any]:
    if args:
        raise TypeError("expected an empty table")
    return {}


_BUILDERS: dict[str, Builder] = {
    "collections.OrderedDict": _empty_table,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda args: _expect(args[0], StoredTensor),
    "torch.Size": lambda args: _whole(args[0]),
    "torch.device": lambda args: _expect(args[0], str)[:20],
}


def flatten(tree: object, name: str) -> dict[str, Any]:
    """Flatten nested tables and lists into one table, with keys joined by dots. A bare tensor gets the key "tensor".

    The key of a list item is its index. Plain values in lists, such as numbers in an optimizer's groups, are left out.
    """
    flat: dict[str, Any] = {}
    visits, length = 0, 0

    def walk(node: object, prefix: str, depth: int) -> None:
        nonlocal visits, length
        visits, length = visits + 1, length + len(prefix)
        if length > MAX_NAMES:
            raise SourceError(f"{name}: the names of the values in it exceed {MAX_NAMES:,} characters in total")
        if visits > _MAX_VALUES:
            raise SourceError(f"{name} contains more than {_MAX_VALUES:,} values")
        if depth > _MAX_DEPTH:
            raise SourceError(f"{name}: its tables are nested more than {_MAX_DEPTH} levels deep")
        if isinstance(node, Mapping):
            items = list(node.items())
        elif isinstance(node, list | tuple):
            items = [(i, value) for i, value in enumerate(node) if not isinstance(value, _PLAIN)]
        else:
            key = prefix or "tensor"
            if key in flat and not (isinstance(node, _PLAIN) and isinstance(flat[key], _PLAIN)):
                raise SourceError(f"{name} contains two values named {key[:80]!r}: give them different names")
            flat[key] = node
            return
        for key, value in items:
            walk(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)

    walk(tree, "", 0)
    return flat

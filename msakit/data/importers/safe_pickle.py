"""Read pickles that hold numpy arrays and plain values, and nothing else: loading one never runs its code.

A pickle is a program. This unpickler executes only the instructions that build containers, strings, bytes, numbers
and numpy data; each call that numpy's own pickles need is replaced by a function of ours that checks every argument
first (a forged array header can make numpy read foreign memory). All other globals are refused by name, all other
calls by what they try to call, object arrays may hold plain values only.

It builds on Python's own, pure-Python unpickler, not the C one: every instruction can be overridden there, and its
memo is a dictionary, so that a ten-byte file cannot ask for gigabytes of it.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_NUMERIC = re.compile(r"[<>=|]?(b1|\?|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[?bhilqpBHILQPefdgFDG])")
_TEXT = re.compile(r"[<>=|]?[SUa]\d{1,6}")
_OBJECT = re.compile(r"\|?O[48]?")
_PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None), np.generic, np.ndarray, list, tuple, dict)


class UnsafePickleError(ValueError):
    """A pickle that wants more than plain data, or is broken; nothing of it has been executed."""


class _Call:
    """What stands for an allowed global: an inert object that only REDUCE may call, with checked arguments."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[[list[Any]], Any]):
        self.name = name
        self.make = make

    def __repr__(self) -> str:
        return f"<{self.name}>"


def load(path: str | Path, max_bytes: int | None = None) -> Any:
    """Read a pickle file. Texts of Python 2 pickles arrive as latin-1; `repaired` makes UTF-8 of them.

    Raises UnsafePickleError naming the file, and FileNotFoundError if it is not there. `max_bytes` refuses larger
    files before anything is read (an array cannot be larger than the file).
    """
    path = Path(path)
    size = path.stat().st_size
    if max_bytes is not None and size > max_bytes:
        raise UnsafePickleError(f"{path} has {size} bytes, more than max_bytes={max_bytes}: raise it if that is right")
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            raise UnsafePickleError(f"{path} is a zip archive (as .npz and torch files are), not a pickle: unpack it")
        file.seek(0)
        return _load(file, str(path))


def loads(data: bytes) -> Any:
    """The same for bytes in memory."""
    return _load(io.BytesIO(data), "pickle")


def repaired(text: str | bytes) -> str:
    """A text from a Python 2 pickle (UTF-8 read as latin-1) or bytes, as it was meant; other texts unchanged.

    Half a surrogate pair, which no file can hold, becomes "?".
    """
    if isinstance(text, bytes):
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            return text.decode("latin-1")
    try:
        return text if text.isascii() else text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text.encode("utf-8", "replace").decode("utf-8")


def _load(file: io.BufferedIOBase, name: str) -> Any:
    try:
        value = _Unpickler(file, encoding="latin1").load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name}: {error}") from None
    except (MemoryError, RecursionError) as error:
        raise UnsafePickleError(f"{name} asks for too much memory or nesting: it is not a data file") from error
    except Exception as error:  # a broken pickle fails in any way it likes
        raise UnsafePickleError(
            f"{name} is not a readable pickle ({type(error).__name__}: {error}): fetch it again"
        ) from error
    if isinstance(value, _Call):
        raise UnsafePickleError(f"{name} holds {value!r} instead of data")
    return value


_Base: Any = pickle._Unpickler


class _Unpickler(_Base):
    """`pickle.Unpickler` with every instruction that calls, imports or sets state replaced by a checked one."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Base.dispatch)

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _ALLOWED:
            raise UnsafePickleError(
                f"the pickle asks for {name}, which is no plain data (allowed are numpy arrays, numbers, texts and "
                "containers): nothing was executed. If you trust its source, convert it to .npz or .csv there"
            )
        return _Call(name, _ALLOWED[name])

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("the pickle refers to objects outside itself (persistent id), which no data file needs")

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        call = self.stack[-1]
        if not isinstance(call, _Call):
            raise UnsafePickleError(f"the pickle calls a {type(call).__name__}, which is no plain data")
        if not isinstance(arguments, tuple):
            raise UnsafePickleError(f"the pickle calls {call.name} with a {type(arguments).__name__}")
        self.stack[-1] = call.make(list(arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is np.ndarray:
            _fill(target, state)
        elif isinstance(target, np.dtype):
            _set_order(target, state)
        else:
            what = target.name if isinstance(target, _Call) else type(target).__name__
            raise UnsafePickleError(f"the pickle sets the state of {what}: only numpy arrays and dtypes have one")

    def _refused(self) -> None:
        raise UnsafePickleError("the pickle holds an instruction (object, extension or buffer) that no plain data need")

    def _instance(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii", "replace") for _ in range(2))
        raise UnsafePickleError(f"the pickle makes an instance of {module}.{name}, which is no plain data")

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.INST[0]] = _instance
    for _opcode in ("OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"):
        dispatch[getattr(pickle, _opcode)[0]] = _refused


def _require(fine: bool, what: str) -> None:
    if not fine:
        raise UnsafePickleError(f"malformed {what} in the pickle: fetch the file again")


def _dtype(arguments: list[Any]) -> np.dtype:
    """numpy.dtype("f4", align, copy): numbers, fixed-width text, objects; no records, no dates."""
    _require(len(arguments) in (1, 2, 3) and isinstance(arguments[0], str), "numpy dtype")
    code = arguments[0]
    if not any(kind.fullmatch(code) for kind in (_NUMERIC, _TEXT, _OBJECT)):
        raise UnsafePickleError(f"the pickle holds an array of dtype {code!r}: only numbers, texts and plain objects")
    return np.dtype(code, False, True)  # a copy: its order is set below


def _set_order(target: Any, state: Any) -> None:
    _require(isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "=", "|"), "numpy dtype state")
    if any(part is not None for part in state[2:5]):
        raise UnsafePickleError("the pickle holds an array of records: only numbers, texts and plain objects")
    if target.kind in "SU":
        sizes = state[5:7] if len(state) >= 7 else (target.itemsize, target.alignment)
        _require(sizes == (target.itemsize, target.alignment), "width of a text dtype")
        target.__setstate__((3, state[1], None, None, None, target.itemsize, target.alignment, target.flags))
    elif target.kind != "O":
        target.__setstate__((3, state[1], None, None, None, -1, -1, target.flags))


def _empty(arguments: list[Any]) -> np.ndarray:
    """numpy's _reconstruct(ndarray, (0,), b"b"): an array to be filled by BUILD."""
    fine = len(arguments) == 3 and isinstance(arguments[0], _Call) and arguments[0].name == "numpy.ndarray"
    _require(fine and arguments[1] == (0,), "numpy array")
    return np.empty(0, np.int8)


def _shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, int):
        shape = (shape,)
    _require(isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape), "numpy shape")
    return tuple(shape)


def _fill(target: np.ndarray, state: Any) -> None:
    """ndarray.__setstate__ after checking that shape, dtype and data agree."""
    _require(isinstance(state, tuple) and len(state) == 5, "numpy array state")
    shape, dtype, data = _shape(state[1]), state[2], state[4]
    _require(isinstance(dtype, np.dtype), "numpy dtype")
    if dtype.kind == "O":
        _require(isinstance(data, list) and len(data) == math.prod(shape), "numpy object array")
        _require_plain(data)
    else:
        data = data.encode("latin-1") if isinstance(data, str) else data
        _require(isinstance(data, bytes) and len(data) == math.prod(shape) * dtype.itemsize, "numpy array data")
    target.__setstate__((1, shape, dtype, int(bool(state[3])), data))  # type: ignore[arg-type]


def _from_buffer(arguments: list[Any]) -> np.ndarray:
    """numpy's _frombuffer(data, dtype, shape, order), the form of protocol 5."""
    _require(len(arguments) in (4, 5), "numpy array")
    data, dtype, shape, order = arguments[:4]
    _require(isinstance(dtype, np.dtype) and dtype.kind != "O" and order in ("C", "F"), "numpy array")
    shape = _shape(shape)
    fine = isinstance(data, bytes | bytearray) and len(data) == math.prod(shape) * dtype.itemsize
    _require(fine, "numpy array data")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order="K")


def _scalar(arguments: list[Any]) -> Any:
    _require(len(arguments) == 2 and isinstance(arguments[0], np.dtype), "numpy number")
    dtype, data = arguments
    data = data.encode("latin-1") if isinstance(data, str) else data
    _require(dtype.kind != "O" and isinstance(data, bytes) and len(data) == dtype.itemsize, "numpy number")
    return np.frombuffer(data, dtype)[0] if dtype.itemsize else dtype.type()


def _require_plain(values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, _PLAIN):
            raise UnsafePickleError(f"an object array holds a {type(value).__name__}: only plain values are allowed")


def _bytes(arguments: list[Any]) -> bytes:
    """_codecs.encode(text, "latin1"), as protocols 0 to 2 write bytes."""
    fine = len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] in ("latin1", "latin-1")
    _require(fine, "bytes")
    return str(arguments[0]).encode("latin-1")


def _container(kind: type) -> Callable[[list[Any]], Any]:
    def make(arguments: list[Any]) -> Any:
        fine = len(arguments) <= 1 and all(isinstance(a, list | tuple | bytes | str) for a in arguments)
        _require(fine, kind.__name__)
        return kind(*[a.encode("latin-1") if kind in (bytearray, bytes) and isinstance(a, str) else a
                      for a in arguments])  # fmt: skip

    return make


def _bytearray(arguments: list[Any]) -> bytearray:
    if len(arguments) == 2:
        return bytearray(_bytes(arguments))
    filled: bytearray = _container(bytearray)(arguments)
    return filled


def _complex(arguments: list[Any]) -> complex:
    _require(len(arguments) == 2 and all(type(a) in (int, float) for a in arguments), "complex number")
    return complex(arguments[0], arguments[1])


def _token(_: list[Any]) -> Any:
    raise UnsafePickleError("the pickle calls numpy.ndarray itself, which no array needs")


_ALLOWED: dict[str, Callable[[list[Any]], Any]] = {
    "numpy.ndarray": _token,
    "numpy.dtype": _dtype,
    "_codecs.encode": _bytes,
    "collections.OrderedDict": lambda arguments: dict(_container(list)(arguments)),
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray._reconstruct"] = _empty
    _ALLOWED[f"{_core}.multiarray.scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric._frombuffer"] = _from_buffer
for _builtins in ("builtins", "__builtin__"):
    _ALLOWED |= {f"{_builtins}.{kind.__name__}": _container(kind) for kind in (set, frozenset, bytes)}
    _ALLOWED |= {f"{_builtins}.bytearray": _bytearray, f"{_builtins}.complex": _complex}

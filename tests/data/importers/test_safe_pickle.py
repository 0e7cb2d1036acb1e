"""Data comes through unchanged from every protocol; hostile pickles execute nothing and say what they asked for."""

import collections
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msakit.data.importers.safe_pickle import UnsafePickleError, load, loads, repaired

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">f8"),
    np.array([True, False]),
    np.array(["a", "größer"]),
    np.array([b"a", b"bcd"]),
    np.array(["a", b"b", 1, None, [1, 2], np.float32(3)], dtype=object),
    np.array([np.arange(2), "x"], dtype=object).reshape(2, 1),
    np.zeros((0, 3), np.int64),
    np.array(7, np.int16),
    np.array([1 + 2j]),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("renamed", [False, True])
def test_data_come_through_unchanged(protocol: int, renamed: bool):
    plain = {"a": [1, 2.5, "é", b"\x00\xff", None, True, (1, {"x"}), frozenset({3}), bytearray(b"q"), 2 + 1j, 10**30]}
    written = pickle.dumps((plain, ARRAYS, np.float64(2.5), np.str_("x"), np.dtype("<i4")), protocol)
    if renamed and protocol < 4:
        written = written.replace(b"numpy._core", b"numpy.core")  # as numpy 1 wrote it
    elif renamed:
        written = written.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        written = written.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
        written = written[:2] + written[11:]  # without the frame, whose length is no longer right
    found, arrays, scalar, text, dtype = loads(written)
    assert found == plain
    assert [type(v) for v in found["a"]] == [type(v) for v in plain["a"]]
    for ours, theirs in zip(arrays, ARRAYS, strict=True):
        assert ours.dtype.newbyteorder("=") == theirs.dtype.newbyteorder("=")  # protocols 0 to 4 make it native
        assert ours.shape == theirs.shape
        if theirs.dtype == object:
            assert [str(a) for a in ours.ravel()] == [str(a) for a in theirs.ravel()]
        else:
            np.testing.assert_array_equal(ours, theirs)
    assert scalar == 2.5
    assert isinstance(scalar, np.float64)
    assert (text, dtype) == ("x", np.dtype("<i4"))


def test_ordered_dictionaries_come_as_dictionaries():
    assert loads(pickle.dumps(collections.OrderedDict(b=1, a=2))) == {"b": 1, "a": 2}


def test_texts_of_python_2_are_repaired():
    # A str of Python 2, protocol 2: bytes with the SHORT_BINSTRING instruction.
    data = b"\x80\x02U" + bytes([5]) + "café".encode() + b"."
    assert repaired(loads(data)) == "café"
    assert repaired("café") == "café"
    assert repaired(b"caf\xe9") == "café"


def test_arrays_of_python_2_come_through():
    # The data of a Python 2 array are a str, written with BINSTRING.
    raw = np.array([1.5, -2.0], "<f8").tobytes()
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", len(raw)) + raw + b"tb."
    )  # fmt: skip
    np.testing.assert_array_equal(loads(data), [1.5, -2.0])


class Reduce:
    def __init__(self, *state: Any):
        self.state = state

    def __reduce__(self) -> Any:
        return self.state


def _stack_global(module: str, name: str) -> bytes:
    parts = [b"\x8c" + bytes([len(p)]) + p.encode() for p in (module, name)]
    return b"\x80\x04" + b"".join(parts) + b"\x93"


HOSTILE = {
    "os.system": lambda flag: pickle.dumps(Reduce(os.system, (f"touch {flag}",))),
    "posix.system nested": lambda flag: pickle.dumps({"train": [np.zeros(2), Reduce(os.system, (f"touch {flag}",))]}),
    "builtins.eval": lambda flag: pickle.dumps(Reduce(eval, (f"open({str(flag)!r}, 'w')",))),
    "builtins.exec, protocol 0": lambda flag: pickle.dumps(Reduce(exec, (f"open({str(flag)!r}, 'w')",)), 0),
    "in an object array": lambda flag: pickle.dumps(np.array([Reduce(os.system, (f"touch {flag}",)), 1], dtype=object)),
    "as the state of an array": lambda flag: pickle.dumps(
        Reduce(np.zeros(1).__reduce__()[0], np.zeros(1).__reduce__()[1], Reduce(os.system, (f"touch {flag}",)))
    ),
    "as a key": lambda flag: b"(dcos\nsystem\n(S'touch " + str(flag).encode() + b"'\ntRI1\ns.",
    "INST": lambda flag: b"(S'touch " + str(flag).encode() + b"'\nios\nsystem\n.",
    "OBJ": lambda flag: b"(cos\nsystem\nS'touch " + str(flag).encode() + b"'\no.",
    "NEWOBJ": lambda flag: b"\x80\x02csubprocess\nPopen\n(S'touch'\nS'" + str(flag).encode() + b"'\nltR\x81.",
    "memo": lambda flag: b"cos\nsystem\nq\x00h\x00S'touch " + str(flag).encode() + b"'\n\x85Rq\x01h\x01.",
    "getattr chain": lambda flag: b"cbuiltins\ngetattr\n(cos\nS'system'\ntR.",
    "dotted name": lambda flag: _stack_global("numpy", "ndarray.__class__") + b".",
    "numpy file loader": lambda flag: _stack_global("numpy", "load") + b"\x8c\x01x\x85R.",
    "numpy test runner": lambda flag: _stack_global("numpy.testing._private.utils", "runstring") + b".",
    "copyreg": lambda flag: _stack_global("copyreg", "_reconstructor") + b".",
    "extension": lambda flag: b"\x80\x02\x82\x01.",
    "persistent id": lambda flag: b"Pwhatever\n.",
    "state of an allowed function": lambda flag: (
        _stack_global("numpy._core.multiarray", "_reconstruct") + b"}\x8c\x0c__defaults__K\x01sb."
    ),
    "attributes of an allowed function": lambda flag: (
        _stack_global("numpy._core.multiarray", "_reconstruct") + b"N}\x8c\x04makeK\x01s\x86b."
    ),
    "ndarray called": lambda flag: _stack_global("numpy", "ndarray") + b"J\x00\x00\x00\x7f\x85R.",
    "ndarray as a class": lambda flag: _stack_global("numpy", "ndarray") + b")\x81.",
    "a global instead of data": lambda flag: _stack_global("numpy", "ndarray") + b".",
    "encode with another codec": lambda flag: _stack_global("_codecs", "encode") + b"\x8c\x01x\x8c\x05rot13\x86R.",
    "a call of data": lambda flag: b"\x80\x02]K\x01\x85R.",
    "bytearray of a size": lambda flag: _stack_global("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R.",
    "sparse memo": lambda flag: b"\x80\x04Nr\xfe\xff\xff\xff\x8c\x01xR.",
    "out-of-band buffer": lambda flag: b"\x80\x05\x97.",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_pickles_execute_nothing(attack: str, tmp_path: Path):
    flag = tmp_path / "executed"
    path = tmp_path / "data.pkl"
    path.write_bytes(HOSTILE[attack](flag))
    with pytest.raises(UnsafePickleError) as error:
        load(path)
    assert not flag.exists()
    assert str(path) in str(error.value)


def test_the_refusal_names_the_global_and_the_mend():
    with pytest.raises(UnsafePickleError, match=r"asks for posix\.system, .* nothing was executed.* convert it"):
        loads(HOSTILE["os.system"](Path("nowhere")))
    with pytest.raises(UnsafePickleError, match=r"instance of os\.system"):
        loads(HOSTILE["INST"](Path("nowhere")))


def _array(dtype: Any, shape: Any, data: Any) -> bytes:
    make, arguments, _ = np.zeros(1).__reduce__()
    return pickle.dumps(Reduce(make, arguments, (1, shape, dtype, False, data)))


@pytest.mark.parametrize(
    "forged",
    [
        _array(np.dtype("f4"), (1000,), b"abcd"),
        _array(np.dtype("f4"), (-1,), b"abcd"),
        _array(np.dtype("f4"), (2**62, 4), b""),
        _array(np.dtype("O"), (1,), b"\x01" * 8),
        _array(np.dtype("O"), (2,), [1]),
        _array(np.dtype([("a", "f4")]), (1,), b"abcd"),
        _array(np.dtype("M8[s]"), (1,), b"abcdefgh"),
        pickle.dumps(Reduce(np.float64(1).__reduce__()[0], (np.dtype("O"), b"\x01" * 8))),
        pickle.dumps(Reduce(np.float64(1).__reduce__()[0], (np.dtype("f8"), b"\x01"))),
        pickle.dumps(Reduce(np.dtype, ("f4", False, True), (3, "<", None, ("x",), {"x": 1}, 400, 1, 0))),
        pickle.dumps(Reduce(np.dtype, ("U2", False, True), (3, "<", None, None, None, 4000, 4, 8))),
        b"",
        b"\x80\x04",
        b"not a pickle at all",
        pickle.dumps(np.arange(100.0))[:-300],
    ],
)
def test_forged_and_broken_arrays_are_refused(forged: bytes):
    with pytest.raises(UnsafePickleError):
        loads(forged)


def test_pandas_tables_are_refused_by_name():
    import pandas as pd

    with pytest.raises(UnsafePickleError, match=r"pandas\."):
        loads(pickle.dumps(pd.DataFrame({"a": [1]})))


def test_the_size_guard(tmp_path: Path):
    path = tmp_path / "big.pkl"
    path.write_bytes(pickle.dumps(list(range(1000))))
    assert len(load(path, max_bytes=10_000)) == 1000
    with pytest.raises(UnsafePickleError, match=r"big\.pkl has \d+ bytes, more than max_bytes=100"):
        load(path, max_bytes=100)

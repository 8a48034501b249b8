"""Pickled records of a stranger's LMDB, read without running anything in them."""

import io
import pickle
import pickletools
from typing import Any

# What builds None, numbers, bytes, text, tuples and lists; nothing that imports, calls or reduces.
_DATA_OPCODES = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG1"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
        *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    }
)


def load_record(content: bytes) -> Any:
    """Unpickle plain data.

    Args:
        content: a pickle.

    Returns:
        Numbers, bytes, text, tuples and lists of them.

    Raises:
        ValueError: If it holds anything else, is cut off, or asks for more memory than it has data.
    """
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if opcode.name not in _DATA_OPCODES:
                message = f"pickle with the opcode {opcode.name}"
                raise ValueError(message)
            # A memo of the stated size is allocated at once: nine bytes can ask for gigabytes.
            if opcode.name == "LONG_BINPUT" and int(argument or 0) > count:
                message = "pickle with a memo beyond its data"
                raise ValueError(message)
        return _DataUnpickler(io.BytesIO(content)).load()
    except ValueError:
        raise
    except Exception as error:  # a broken pickle raises many kinds
        message = f"broken pickle ({type(error).__name__})"
        raise ValueError(message) from error


class _DataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        message = f"pickle that names {module}.{name}"
        raise ValueError(message)

"""From what is right to what is nearly so: bytes, JSON and protocol messages, changed at random."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Path = tuple[Any, ...]

WHOLE = (0, 1, 2, 3, 7, 8, 16, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**62, 2**63 - 1)
BEYOND = (2**63, 2**64 - 1, 2**64, 2**70, 10**40, 10**400)
NUMBERS = (*WHOLE, *BEYOND, *(-number for number in (*WHOLE[1:], *BEYOND)))
FRACTIONS = (0.0, -0.0, 0.5, -1.5, 1e-320, 1e39, 1.8e308, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1e5",
        "true",
        "null",
        "\0",
        "\n",
        "a\r\nb: c",
        "'",
        '"',
        "\\",
        "%00",
        "%2e%2e%2f",
        "../..",
        "/",
    ),
    *(
        "\ud800",
        "\udfff\ud800",
        "\u202e",
        "\ufeff",
        "é",
        "e\u0301",
        "😀",
        "٣",
        "½",
        "x" * 300,
        "é" * 200,
        "😀" * 700,
        "{}",
        "<b>",
    ),
)
"""Strings that were a bug somewhere."""
LARGE = {
    "deep": b"[" * 20_000 + b"]" * 20_000,
    "long": b'"' + b"x" * 100_000 + b'"',
    "many": b"[1" + b",1" * 50_000 + b"]",
}
"""What words stand for until they are written down: too large to be drawn, and to be shown."""
FIELDS_OF_TENSORS = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "binary_data_size")
WORDS = (
    *FIELDS_OF_TENSORS,
    *("binary_data", "binary_data_output", "classification", "priority", "timeout", "sequence_id", "sequence_start"),
    *("triton_enable_empty_final_response", "triton_final_response", "triton_mine", "config", "file:1/model.onnx"),
    *("name", "datatype", "shape", "data", "parameters", "id", "inputs", "outputs", "contents"),
    *("BOOL", "UINT8", "UINT64", "INT8", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES"),
    *("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1", "simple", "identity_fp32", "identity_bytes", "classifier", "nothing"),
)
"""Words that the protocol knows, where they do not belong."""


def texts() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(TEXTS), st.sampled_from(WORDS), st.text(max_size=12))


def values() -> st.SearchStrategy[Any]:
    """Any JSON, shallow or deep."""
    leaf = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(FRACTIONS), texts())
    some = st.recursive(
        leaf,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts(), inner, max_size=3)),
        max_leaves=6,
    )
    return st.one_of(leaf, some, st.sampled_from(sorted(LARGE)))


@st.composite
def changed_json(draw: st.DrawFn, document: Any) -> Any:
    """A document in which up to three places are something else, gone, there twice, or more than there should be."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        parent = document
        for step in path:
            parent = parent[step]
        what = draw(st.sampled_from(("other", "other", "gone", "twice", "more")))
        if what == "other":
            parent[last] = draw(values())
        elif what == "gone":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(texts())] = copy.deepcopy(parent[last]) if what == "twice" else draw(values())
        else:
            parent.insert(last, copy.deepcopy(parent[last]) if what == "twice" else draw(values()))
    return document


def _places(node: Any, path: Path = ()) -> Iterator[Path]:
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in members:
        yield (*path, key)
        yield from _places(value, (*path, key))


def to_json(document: Any) -> bytes:
    """JSON as Python writes it: lone surrogates as their escapes, NaN by its name. Bytes stay what they are."""
    if isinstance(document, bytes):
        return document
    content = json.dumps(document).encode()
    for word, large in LARGE.items():
        content = content.replace(json.dumps(word).encode(), large)
    return content


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which a few are others, more, fewer, repeated, or cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed)))
        what = draw(st.sampled_from(("set", "set", "insert", "delete", "repeat", "number", "cut")))
        if what == "set" and at < len(changed):
            changed[at] = draw(st.integers(0, 255))
        elif what == "insert":
            changed[at:at] = draw(st.binary(max_size=8))
        elif what == "delete":
            del changed[at : at + draw(st.integers(1, 16))]
        elif what == "repeat":
            changed[at:at] = changed[at : at + draw(st.integers(1, 64))]
        elif what == "number":
            changed[at : at + 4] = draw(st.sampled_from((0, 1, 2**31 - 1, 2**31, 2**32 - 1))).to_bytes(4, "little")
        elif what == "cut" and draw(st.booleans()):
            del changed[at:]
    return bytes(changed)


@cache
def messages(descriptor: Descriptor, names: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Messages of a type, with any of its fields set to anything that the wire can carry.

    Args:
        names: for its strings, besides odd ones.
    """
    return st.builds(
        lambda members: _message(descriptor, members),
        st.fixed_dictionaries({}, optional={field.name: _members(field, names) for field in descriptor.fields}),
    )


def _message(descriptor: Descriptor, members: dict[str, Any]) -> Message:
    return GetMessageClass(descriptor)(**members)


def _members(field: Any, names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = (entry.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_single(key, names), _single(value, names), max_size=3)
    single = _single(field, names)
    return st.lists(single, max_size=4) if field.is_repeated else single


def _single(field: Any, names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return st.deferred(lambda: messages(field.message_type, names))
    if field.enum_type is not None:
        return st.one_of(st.sampled_from([value.number for value in field.enum_type.values]), st.integers(0, 2**31 - 1))
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.one_of(st.sampled_from(names or ("",)), texts().filter(_is_unicode))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.one_of(st.binary(max_size=80), st.sampled_from([bytes(64), bytes(4), b"\xff" * 8]))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return st.one_of(st.floats(width=32), st.just(1.0))
    bits, signed = {
        FieldDescriptor.TYPE_INT32: (32, True),
        FieldDescriptor.TYPE_INT64: (64, True),
        FieldDescriptor.TYPE_UINT32: (32, False),
        FieldDescriptor.TYPE_UINT64: (64, False),
    }[field.type]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.sampled_from([number for number in NUMBERS if low <= number <= high]), st.integers(0, 20))


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)

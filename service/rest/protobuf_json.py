"""A protocol message as Triton writes it in JSON: every field is there, 64-bit numbers are numbers.

`google.protobuf.json_format` has numbers of 64 bits as strings, which the protocol's clients do not expect.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def to_json(message: Message) -> dict[str, Any]:
    """The message's fields by name; a message inside it only where it is set."""
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if field.is_repeated or field.message_type is None or message.HasField(field.name)
        if field.containing_oneof is None or message.HasField(field.name)
    }


def _value(field: Any, value: Any) -> Any:
    if field.is_repeated:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            inner = entry.fields_by_name["value"]
            return {str(key): _single(inner, value[key]) for key in value}
        return [_single(field, element) for element in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value

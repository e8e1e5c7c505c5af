"""A protocol message as Triton writes it in JSON: every field is there, 64-bit numbers are numbers.

`google.protobuf.json_format` has numbers of 64 bits as strings, which the protocol's clients do not expect.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

TYPES = {
    FieldDescriptor.CPPTYPE_BOOL: "boolean",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_STRING: "string",
}
"""JSON's types of what is not a whole number."""


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
        if inner := _map_value(field):
            return {str(key): _single(inner, value[key]) for key in value}
        return [_single(field, element) for element in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def schemas(message: Any, references: str) -> dict[str, Any]:
    """JSON schemas, by name, of what `to_json` makes of a message and of the messages in it.

    Args:
        message: its descriptor.
        references: what a name begins with where a schema refers to it.
    """
    found: dict[str, Any] = {}
    waiting = [message]
    while waiting:
        descriptor = waiting.pop()
        if schema_name(descriptor) in found:
            continue
        found[schema_name(descriptor)] = {
            "type": "object",
            "properties": {field.name: _schema(field, references) for field in descriptor.fields},
            "required": [
                field.name
                for field in descriptor.fields
                if field.is_repeated or (field.message_type is None and field.containing_oneof is None)
            ],
        }
        for field in descriptor.fields:
            inner = _map_value(field) or field
            if inner.message_type is not None:
                waiting.append(inner.message_type)
    return found


def schema_name(message: Any) -> str:
    """What a message's descriptor calls it, within its package."""
    return str(message.full_name.removeprefix(message.file.package + "."))


def _schema(field: Any, references: str) -> dict[str, Any]:
    if value := _map_value(field):
        return {"type": "object", "additionalProperties": _schema(value, references)}
    if field.message_type is not None:
        single: dict[str, Any] = {"$ref": references + schema_name(field.message_type)}
    elif field.enum_type is not None:
        single = {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    else:
        single = {"type": TYPES.get(field.cpp_type, "integer")}
    return {"type": "array", "items": single} if field.is_repeated else single


def _map_value(field: Any) -> Any:
    """The field of a map's values; None where the field is no map."""
    entry = field.message_type
    return entry.fields_by_name["value"] if entry is not None and entry.GetOptions().map_entry else None

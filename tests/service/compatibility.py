"""What callers of an API would miss in another state of it.

`classifier_v1.json` is what callers of `fovea.v1` were given, a file descriptor as JSON.
`python -m tests.service.compatibility` writes what there is now into it, which is part of a release: from then on
what was added has to stay, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from service.pb.fovea.v1 import classifier_pb2

BASELINE = Path(__file__).resolve().with_name("classifier_v1.json")

Named = TypeVar("Named", DescriptorProto, EnumDescriptorProto, ServiceDescriptorProto, MethodDescriptorProto)


def baseline() -> FileDescriptorProto:
    return json_format.Parse(BASELINE.read_text(), FileDescriptorProto())


def live() -> FileDescriptorProto:
    return FileDescriptorProto.FromString(classifier_pb2.DESCRIPTOR.serialized_pb)


def breaks(before: FileDescriptorProto, after: FileDescriptorProto) -> Iterator[str]:
    """A sentence for each thing that is gone or changed; what was added is nobody's loss."""
    if after.package != before.package:
        yield f"package {before.package} is {after.package} now"
        return
    yield from _type_breaks(before.package, before, after)
    for name, service, now in _by_name(before.package, before.service, after.service):
        if now is None:
            yield f"service {name} is gone"
            continue
        for call, method, its in _by_name(name, service.method, now.method):
            yield from [f"rpc {call} is gone"] if its is None else _method_breaks(call, method, its)


def _type_breaks(
    scope: str, before: FileDescriptorProto | DescriptorProto, after: FileDescriptorProto | DescriptorProto
) -> Iterator[str]:
    for name, message, now in _by_name(scope, _messages(before), _messages(after)):
        if now is None:
            yield f"message {name} is gone"
        else:
            yield from _field_breaks(name, message, now)
            yield from _type_breaks(name, message, now)
    for name, enum, its in _by_name(scope, before.enum_type, after.enum_type):
        yield from [f"enum {name} is gone"] if its is None else _value_breaks(name, enum, its)


def _messages(within: FileDescriptorProto | DescriptorProto) -> Iterable[DescriptorProto]:
    return within.message_type if isinstance(within, FileDescriptorProto) else within.nested_type


def _by_name(scope: str, before: Iterable[Named], after: Iterable[Named]) -> Iterator[tuple[str, Named, Named | None]]:
    """Each of what was there, with its full name and what has that name now."""
    found = {each.name: each for each in after}
    for each in before:
        yield f"{scope}.{each.name}", each, found.get(each.name)


def _method_breaks(name: str, before: MethodDescriptorProto, after: MethodDescriptorProto) -> Iterator[str]:
    for kind, was, now in zip(("takes", "returns"), _ends(before), _ends(after), strict=True):
        if now != was:
            yield f"rpc {name} {kind} {now} now, was {was}"


def _ends(method: MethodDescriptorProto) -> tuple[str, str]:
    """What a method takes and what it returns."""
    return (
        "stream " * method.client_streaming + method.input_type.removeprefix("."),
        "stream " * method.server_streaming + method.output_type.removeprefix("."),
    )


def _field_breaks(message: str, before: DescriptorProto, after: DescriptorProto) -> Iterator[str]:
    by_number = {field.number: field for field in after.field}
    numbers = {field.name: field.number for field in after.field}
    for field in before.field:
        name, now = f"{message}.{field.name}", by_number.get(field.number)
        if numbers.get(field.name, field.number) != field.number:
            yield f"field {name} has number {numbers[field.name]} now, was {field.number}"
        elif now is None:
            yield f"field {name} = {field.number} is gone"
        else:
            for kind, was, its in [
                ("name", field.name, now.name),
                ("type", _type(field), _type(now)),
                ("label", _label(field), _label(now)),
                ("oneof", _oneof(field, before), _oneof(now, after)),
            ]:
                if its != was:
                    yield f"field {name} = {field.number} has {kind} {its} now, was {was}"


def _type(field: FieldDescriptorProto) -> str:
    return field.type_name.removeprefix(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _label(field: FieldDescriptorProto) -> str:
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return "repeated"
    return "optional" if field.proto3_optional else "single"


def _oneof(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    # An optional field has a oneof of its own, which nobody wrote.
    if field.HasField("oneof_index") and not field.proto3_optional:
        return message.oneof_decl[field.oneof_index].name
    return "none"


def _value_breaks(enum: str, before: EnumDescriptorProto, after: EnumDescriptorProto) -> Iterator[str]:
    names = {value.number: value.name for value in after.value}
    numbers = {value.name: value.number for value in after.value}
    for value in before.value:
        name = f"{enum}.{value.name}"
        if numbers.get(value.name, value.number) != value.number:
            yield f"value {name} has number {numbers[value.name]} now, was {value.number}"
        elif value.number not in names:
            yield f"value {name} = {value.number} is gone"
        elif value.name not in numbers:
            yield f"value {name} = {value.number} has name {names[value.number]} now"


if __name__ == "__main__":
    if broken := [*breaks(baseline(), live())]:
        sys.exit("\n".join(broken))
    BASELINE.write_text(json_format.MessageToJson(live()) + "\n")

"""Requests made from the service's own OpenAPI description, valid and not: every answer must be as it says."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.campaign import campaign, try_inputs
from tests.fuzz.target import TIMEOUT_S, TO_LOAD, Target

CHECKS = [
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
]
KNOWN = {"name": "identity_fp32", "version": "1", "repository": "r", "action": "load"}
"""For paths, whose names would otherwise hardly ever be those of models."""


@campaign(short=200, long=4000)
def test_every_answer_is_as_described(target: Target, inputs: int) -> None:
    description = schemathesis.openapi.from_url(target.service.http + "/openapi.json")
    not_to_load = target.not_to_load()

    def leaves_alone(case: Case[Any]) -> bool:
        return unquote(str(case.path_parameters.get("name"))) not in not_to_load

    def is_negative_whatever_its_body(case: Case[Any]) -> bool:
        """A length of zero makes a tensor of any bytes."""
        headers = dict(case.headers or {})
        return headers.get("Inference-Header-Content-Length") not in ("0", 0)

    strategies = []
    for found in description.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        loads = operation.path.endswith("load")
        known = KNOWN | {"name": TO_LOAD[0]} if loads else KNOWN
        names = {name: value for name, value in known.items() if f"{{{name}}}" in operation.path} or None
        cases = [
            operation.as_strategy(GenerationMode.POSITIVE),
            operation.as_strategy(GenerationMode.POSITIVE, path_parameters=names),
            operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=names).filter(is_negative_whatever_its_body),
        ]
        strategies += [case.filter(leaves_alone) for case in cases] if loads else cases
    with requests.Session() as session:

        def send(case: Case[Any]) -> None:
            case.call_and_validate(session=session, timeout=TIMEOUT_S, checks=CHECKS)

        try_inputs("OpenAPI", inputs, st.one_of(strategies), send, target.service.resident_bytes)
    target.must_be_unharmed()

"""extension_trace, extension_logging: settings that a request reads and changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from grpc import StatusCode
from tritonclient.grpc import service_pb2

from tests.conformance.wire import MALFORMED, Grpc, Http, Json, refused

trace = pytest.mark.extension("trace")
logging = pytest.mark.extension("logging")

TRACE = "/v2/trace/setting"
MODEL_TRACE = "/v2/models/simple/trace/setting"
CLEARED = {"trace_level": None, "trace_rate": None, "trace_count": None, "log_frequency": None}


@pytest.fixture
def traced(http: Http) -> Iterator[Json]:
    """The trace settings as they were, and will be."""
    yield http.get(TRACE).json
    http.post(MODEL_TRACE, CLEARED)
    http.post(TRACE, CLEARED)


@pytest.fixture
def logged(http: Http) -> Iterator[Json]:
    """The log settings as they were, and will be."""
    before = http.get("/v2/logging").json
    yield before
    http.post("/v2/logging", {name: value for name, value in before.items() if name != "log_file"})


@trace
@pytest.mark.parametrize("path", [TRACE, MODEL_TRACE])
def test_trace_settings(http: Http, path: str) -> None:
    """Trace setting: all of them; the level is a list, every other a string."""
    settings = http.get(path).json
    assert settings.keys() >= {"trace_level", "trace_rate", "trace_count", "log_frequency", "trace_file"}
    assert isinstance(settings.pop("trace_level"), list)
    assert all(isinstance(value, str) for value in settings.values())


@trace
def test_trace_settings_over_grpc(http: Http, grpc: Grpc) -> None:
    """TraceSetting: the same, each a list of strings."""
    settings = grpc.call("TraceSetting", service_pb2.TraceSettingRequest()).settings
    over_http = {name: value if isinstance(value, list) else [value] for name, value in http.get(TRACE).json.items()}
    assert {name: list(setting.value) for name, setting in settings.items()} == over_http


@trace
def test_change_trace_settings(http: Http, traced: Json) -> None:
    """Trace setting: the answer has what is now; what was not named stays."""
    assert http.post(TRACE, {"trace_rate": "10"}).json == traced | {"trace_rate": "10"}
    assert http.get(TRACE).json == traced | {"trace_rate": "10"}


@trace
def test_clear_trace_settings(http: Http, traced: Json) -> None:
    """Trace setting: null clears, down to what the server began with."""
    http.post(TRACE, {"trace_rate": "10"})
    assert http.post(TRACE, {"trace_rate": None}).json["trace_rate"] == traced["trace_rate"]


@trace
def test_a_models_trace_settings(http: Http, traced: Json) -> None:
    """Trace setting of a model: its own before everyone's, until it is cleared."""
    assert http.post(MODEL_TRACE, {"trace_rate": "20"}).json["trace_rate"] == "20"
    assert http.get(TRACE).json == traced
    assert http.post(TRACE, {"trace_rate": "10"}).json["trace_rate"] == "10"
    assert http.get(MODEL_TRACE).json["trace_rate"] == "20"
    assert http.post(MODEL_TRACE, {"trace_rate": None}).json["trace_rate"] == "10"


@trace
def test_trace_levels(http: Http, traced: Json) -> None:
    """trace_level: a list; other levels than OFF need a file, which only the server's start can name."""
    assert http.post(TRACE, {"trace_level": ["OFF"]}).json == traced | {"trace_level": ["OFF"]}


@trace
def test_change_trace_settings_over_grpc(http: Http, grpc: Grpc, traced: Json) -> None:
    """TraceSetting: a value sets, an empty one clears."""
    request: Any = service_pb2.TraceSettingRequest(model_name="simple")
    request.settings["trace_rate"].value.append("7")
    assert list(grpc.call("TraceSetting", request).settings["trace_rate"].value) == ["7"]
    assert http.get(MODEL_TRACE).json["trace_rate"] == "7"
    del request.settings["trace_rate"].value[:]
    assert list(grpc.call("TraceSetting", request).settings["trace_rate"].value) == [traced["trace_rate"]]


@trace
@pytest.mark.parametrize(
    "settings",
    [{"trace_rate": "often"}, {"trace_level": "TIMESTAMPS"}, {"trace_count": "-7"}, {"trace_rate": {}}],
)
def test_trace_setting_that_cannot_be(http: Http, traced: Json, settings: Json) -> None:
    """Trace setting: each of its type."""
    assert http.post(TRACE, settings).error(*MALFORMED)


@trace
def test_trace_file_cannot_be_changed(http: Http, grpc: Grpc) -> None:
    """trace_file: no request says where a server writes."""
    assert "trace file location can not be updated" in http.post(TRACE, {"trace_file": "/tmp/trace"}).error(501, 400)
    request = service_pb2.TraceSettingRequest()
    request.settings["trace_file"].value.append("/tmp/trace")
    with refused(StatusCode.UNIMPLEMENTED, StatusCode.INVALID_ARGUMENT):
        grpc.call("TraceSetting", request)


@trace
def test_trace_settings_of_an_unknown_model(http: Http, grpc: Grpc) -> None:
    """Trace setting of a model: one that there is."""
    assert "unknown model" in http.get("/v2/models/nope/trace/setting").error(400, 404)
    with refused(StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, text="unknown model"):
        grpc.call("TraceSetting", service_pb2.TraceSettingRequest(model_name="nope"))


@logging
def test_log_settings(http: Http) -> None:
    """Logging: all settings, each of its type."""
    settings = http.get("/v2/logging").json
    assert {name: type(value) for name, value in settings.items()} == {
        "log_file": str,
        "log_info": bool,
        "log_warning": bool,
        "log_error": bool,
        "log_verbose_level": int,
        "log_format": str,
    }
    assert settings["log_format"] in ("default", "ISO8601")


@logging
def test_log_settings_over_grpc(http: Http, grpc: Grpc) -> None:
    """LogSettings: the same, in the member of each one's type."""
    members = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    settings = grpc.call("LogSettings", service_pb2.LogSettingsRequest()).settings
    expected = http.get("/v2/logging").json
    assert {name: getattr(settings[name], members[type(value)]) for name, value in expected.items()} == expected


@logging
@pytest.mark.parametrize(
    "change",
    [
        {"log_verbose_level": 1},
        {"log_info": False},
        {"log_warning": False, "log_error": False},
        {"log_format": "ISO8601"},
        {},
    ],
)
def test_change_log_settings(http: Http, logged: Json, change: Json) -> None:
    """Logging: the answer has what is now; what was not named stays."""
    assert http.post("/v2/logging", change).json == logged | change
    assert http.get("/v2/logging").json == logged | change


@logging
def test_change_log_settings_over_grpc(http: Http, grpc: Grpc, logged: Json) -> None:
    """LogSettings: in the member of each one's type."""
    request = service_pb2.LogSettingsRequest()
    request.settings["log_info"].bool_param = not logged["log_info"]
    assert grpc.call("LogSettings", request).settings["log_info"].bool_param is not logged["log_info"]
    assert http.get("/v2/logging").json["log_info"] is not logged["log_info"]


@logging
@pytest.mark.parametrize(
    "settings",
    [{"log_info": "yes"}, {"log_verbose_level": -1}, {"log_verbose_level": "1"}, {"log_format": 7}],
)
def test_log_setting_that_cannot_be(http: Http, logged: Json, settings: Json) -> None:
    """Logging: each of its type."""
    assert http.post("/v2/logging", settings).error(*MALFORMED)


@logging
def test_unknown_log_format(http: Http, logged: Json) -> None:
    """log_format: "default" or "ISO8601"; Triton calls another one unavailable."""
    assert "log_format" in http.post("/v2/logging", {"log_format": "nothing"}).error(400, 503)


@logging
def test_log_setting_of_another_type_over_grpc(grpc: Grpc) -> None:
    """LogSettings: each of its type."""
    request = service_pb2.LogSettingsRequest()
    request.settings["log_warning"].string_param = "yes"
    with refused(StatusCode.INVALID_ARGUMENT, text="log_warning"):
        grpc.call("LogSettings", request)


@logging
def test_log_file_cannot_be_changed(http: Http, grpc: Grpc) -> None:
    """log_file: no request says where a server writes."""
    assert "log file location can not be updated" in http.post("/v2/logging", {"log_file": "/tmp/log"}).error(501, 400)
    request = service_pb2.LogSettingsRequest()
    request.settings["log_file"].string_param = "/tmp/log"
    with refused(StatusCode.UNIMPLEMENTED, StatusCode.INVALID_ARGUMENT):
        grpc.call("LogSettings", request)

"""Every setting of the service: an environment variable `FOVEA_<NAME>`, or a flag of `fovea serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

BUNDLED_REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"

Port = Annotated[int, Field(ge=0, le=65535)]
PositiveInt = Annotated[int, Field(ge=1)]
MessageBytes = Annotated[int, Field(ge=1, le=2**31 - 1)]  # gRPC's own limit is a 32-bit number


class Settings(BaseSettings):
    """Read once, at start."""

    model_config = SettingsConfigDict(
        env_prefix="FOVEA_", extra="ignore", cli_kebab_case=True, cli_hide_none_type=True, cli_avoid_json=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    http_port: Port = Field(8000, description="HTTP port; 0 takes a free one, as for the other ports.")
    grpc_port: Port = Field(8001, description="gRPC port.")
    grpc_max_connection_age_s: float | None = Field(
        None,
        gt=0,
        description="Seconds after which a gRPC connection's client is told to open another; unset: never.",
    )
    grpc_max_connection_age_grace_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that the calls of such a connection have to end; unset: as many as they take.",
    )
    grpc_transport: Literal["grpcio", "native"] = Field(
        "grpcio",
        description="What carries gRPC: grpcio, or native, pygrpc-native of the extra native: less CPU time a request, "
        "and a message of any size is taken into memory before it is refused.",
    )
    tls_certificate: Path | None = Field(
        None,
        description="Certificate and its chain, PEM: HTTP and gRPC are served with TLS; read again when it changes.",
    )
    tls_key: Path | None = Field(None, description="The certificate's key, PEM, without a password.")
    tls_client_ca: Path | None = Field(
        None, description="Certificates, PEM, one of which must have signed a client's; unset: clients need none."
    )
    api_keys: Path | None = Field(
        None, description="File of API keys (fovea key), one of which requests need then; read again when it changes."
    )
    cors_origins: str = Field(
        "", description="Origins whose web pages may use the HTTP API, by commas; https://example.com or *."
    )
    max_connections: PositiveInt = Field(16384, description="Most connections at a time, for each port.")
    front_processes: PositiveInt = Field(
        1,
        description="Processes that answer HTTP and gRPC before the one that has the models; 1: that one does it all.",
    )
    metrics_port: Port = Field(8002, description="Port of Prometheus metrics, at /metrics, and of health, for probes.")
    model_repository: Path = Field(BUNDLED_REPOSITORY, description="Folder of models, in Triton's layout.")
    default_model: str | None = Field(
        None,
        description="Model for requests that name none; unset: the only model, where there is one.",
    )
    model_control_mode: Literal["none", "explicit", "poll"] = Field(
        "none",
        description="none: every model, loaded at start; explicit: loaded and unloaded by request; poll: as the folder "
        "changes.",
    )
    load_models: str = Field(
        "*", description="Models to load at start with explicit control: names by commas, or * for all."
    )
    poll_interval_s: float = Field(15.0, gt=0, description="How often the folder is looked at, with poll, in seconds.")
    system_shared_memory: bool = Field(
        False, description="Whether clients may register system shared memory and have tensors in it."
    )
    cuda_shared_memory: bool = Field(
        False, description="Whether clients may register memory of a GPU and have tensors in it."
    )
    server_name: str = Field("fovea", description="The server's name in its Open Inference Protocol metadata.")
    backend: Literal["onnxruntime", "triton"] = Field(
        "onnxruntime",
        description="What runs the graphs: ONNX Runtime in this process, or a Triton server with the same repository.",
    )
    triton_address: str | None = Field(
        None, description="Host and port of Triton's gRPC, for the backend triton; it may be asked before it is there."
    )
    triton_shared_memory: bool = Field(
        False, description="Whether tensors go to Triton, on the same host then, in system shared memory."
    )
    execution_provider: Literal["cpu", "cuda"] = Field(
        "cpu", description="cpu or cuda; where cuda cannot be had the start fails."
    )
    device_id: int = Field(0, ge=0, description="CUDA device, for the execution provider cuda.")
    max_queue_size: PositiveInt = Field(
        1024, description="Images that may wait for a model version, unless its config.pbtxt says otherwise."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="Longest time for a request, in seconds; a gRPC client's own deadline may be shorter."
    )
    max_request_bytes: MessageBytes = Field(64 * 2**20, description="Largest request body or gRPC message, in bytes.")
    max_images_per_request: PositiveInt = Field(256, description="Most images in one request.")
    max_image_bytes: PositiveInt = Field(32 * 2**20, description="Largest encoded image, in bytes.")
    max_image_pixels: PositiveInt = Field(
        50_000_000, description="Most pixels (width x height) of an image, read from its header before decoding."
    )
    max_image_frames: PositiveInt = Field(
        1000, description="Most frames of an animated image; only the first is ever decoded."
    )
    grace_period_s: float = Field(
        30.0, ge=0, description="Longest time to finish requests in flight after SIGTERM, in seconds."
    )
    log_and_trace_changes: bool = Field(False, description="Whether clients may change log and trace settings.")
    trace_file: Path | None = Field(
        None, description="Where traces of single requests are written; unset: nothing can be traced."
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://[^/]",
        description="Collector that spans of requests are sent to, by OTLP over HTTP; unset: none are made.",
    )
    otlp_sampling_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of the requests without a trace context of their caller's that are sent."
    )
    log_format: Literal["text", "json"] = Field("text", description="text for people, json for one JSON object a line.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="debug logs every request, info those that fail (those that a full queue refuses once a second).",
    )

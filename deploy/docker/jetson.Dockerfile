# The service on a Jetson, on NVIDIA's JetPack image, which has CUDA and cuDNN. From the repository's root:
#   docker build --file deploy/docker/jetson.Dockerfile --tag fovea:jetson \
#     --build-arg L4T_IMAGE=… --build-arg PYTHON=python3.12 \
#     --build-arg ONNXRUNTIME_WHEEL=https://… --build-arg ONNXRUNTIME_WHEEL_SHA256=… .
# docs/containers.md says which fit together, and how it is run.
ARG L4T_IMAGE=l4t-jetpack:r36.4.0

FROM ${L4T_IMAGE} AS python
# 3.11 or later; taken from the image's distribution where the image does not have it.
ARG PYTHON=python3.11
# hadolint ignore=DL3008
RUN command -v "${PYTHON}" > /dev/null || { \
        apt-get update \
        && apt-get install --yes --no-install-recommends "${PYTHON}" "${PYTHON}-venv" \
        && rm -rf /var/lib/apt/lists/*; }

FROM python AS build
WORKDIR /build
ARG PYTHON=python3.11
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/docker/build.txt ./
RUN "${PYTHON}" -m venv tools && tools/bin/pip install --require-hashes --no-deps --requirement build.txt
COPY deploy/docker/jetson.txt ./
# ONNX Runtime for this JetPack and this Python: an address or a path, and its hash.
ARG ONNXRUNTIME_WHEEL
ARG ONNXRUNTIME_WHEEL_SHA256
RUN printf '%s --hash=sha256:%s\n' "${ONNXRUNTIME_WHEEL}" "${ONNXRUNTIME_WHEEL_SHA256}" > onnxruntime.txt \
    && "${PYTHON}" -m venv --without-pip /app/.venv \
    && tools/bin/pip --python /app/.venv install --no-compile --require-hashes --no-deps --requirement jetson.txt --requirement onnxruntime.txt
COPY pyproject.toml README.md ./
COPY service service
COPY model/__init__.py model/__init__.py
# Nothing in the image carries the time at which it was built.
ARG SOURCE_DATE_EPOCH=1767225600
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /app/.venv install --no-compile --no-deps --no-index dist/*.whl \
    # Training is not in the image.
    && rm /app/.venv/bin/fovea-model \
    && "${PYTHON}" -m compileall -q --invalidation-mode unchecked-hash /app/.venv/lib \
    && tools/bin/cyclonedx-py environment --output-reproducible --output-file /app/sbom.cdx.json /app/.venv \
    && find /app -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

FROM python
COPY --from=build /app /app
COPY model_repository /models
ENV FOVEA_HOST=0.0.0.0 FOVEA_LOG_FORMAT=json FOVEA_MODEL_REPOSITORY=/models PYTHONDONTWRITEBYTECODE=1 \
    FOVEA_EXECUTION_PROVIDER=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fovea" \
      org.opencontainers.image.description="Serves CNN image classifiers over gRPC and HTTP, on a Jetson" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      fovea.sbom="/app/sbom.cdx.json"
USER 65532:65532
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["/app/.venv/bin/python", "-ISc", "import urllib.request as u; u.urlopen('http://127.0.0.1:8002/v2/health/ready')"]
ENTRYPOINT ["/app/.venv/bin/fovea"]
CMD ["serve"]

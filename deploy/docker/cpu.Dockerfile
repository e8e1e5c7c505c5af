# The service on a CPU, x86-64 or arm64. From the repository's root:
#   docker build --file deploy/docker/cpu.Dockerfile --tag fovea:cpu .
# docs/containers.md says how it is run, and how the base image is pinned.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/docker/build.txt ./
RUN python3 -m venv tools && tools/bin/pip install --require-hashes --no-deps --requirement build.txt
COPY deploy/docker/cpu.txt ./
RUN python3 -m venv --without-pip /app/.venv \
    && tools/bin/pip --python /app/.venv install --no-compile --require-hashes --no-deps --requirement cpu.txt
COPY pyproject.toml README.md ./
COPY service service
COPY model/__init__.py model/__init__.py
# Nothing in the image carries the time at which it was built.
ARG SOURCE_DATE_EPOCH=1767225600
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && tools/bin/pip --python /app/.venv install --no-compile --no-deps --no-index dist/*.whl \
    # Training is not in the image.
    && rm /app/.venv/bin/fovea-model \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app/.venv/lib \
    && tools/bin/cyclonedx-py environment --output-reproducible --output-file /app/sbom.cdx.json /app/.venv \
    && find /app -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

FROM ${PYTHON_IMAGE}
COPY --from=build /app /app
COPY model_repository /models
ENV FOVEA_HOST=0.0.0.0 FOVEA_LOG_FORMAT=json FOVEA_MODEL_REPOSITORY=/models PYTHONDONTWRITEBYTECODE=1
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fovea" \
      org.opencontainers.image.description="Serves CNN image classifiers over gRPC and HTTP, on a CPU" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      fovea.sbom="/app/sbom.cdx.json"
USER 65532:65532
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["/app/.venv/bin/python", "-ISc", "import urllib.request as u; u.urlopen('http://127.0.0.1:8002/v2/health/ready')"]
ENTRYPOINT ["/app/.venv/bin/fovea"]
CMD ["serve"]

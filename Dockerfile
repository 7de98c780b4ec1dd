# syntax=docker/dockerfile:1
# One file, four images: --target operator | gateway | worker-cpu | worker-gpu. Versions: docs/versions.md.
# A release passes the base image by digest: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

# Everything is installed here from the lock, with hashes; compilers and uv stay behind.
FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/searchops
RUN pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /source
COPY pyproject.toml uv.lock ./

# Dependencies first: they change less often than the code, and the layer is kept.
FROM build AS build-operator
RUN uv sync --frozen --no-default-groups --extra operator --no-install-project
COPY README.md LICENSE ./
COPY operator operator
RUN uv sync --frozen --no-default-groups --extra operator --no-editable \
 && rm -f /opt/searchops/bin/searchops-worker /opt/searchops/bin/searchops-sandbox

FROM build AS build-gateway
RUN uv sync --frozen --no-default-groups --extra gateway --no-install-project
COPY README.md LICENSE ./
COPY operator operator
COPY workers workers
RUN uv sync --frozen --no-default-groups --extra gateway --no-editable \
 && rm -f /opt/searchops/bin/searchops-operator /opt/searchops/bin/searchops /opt/searchops/bin/searchops-sandbox

FROM build AS build-worker-cpu
RUN uv sync --frozen --no-default-groups --extra worker --no-install-project
COPY README.md LICENSE ./
COPY operator operator
COPY workers workers
RUN uv sync --frozen --no-default-groups --extra worker --no-editable \
 && rm -f /opt/searchops/bin/searchops-operator /opt/searchops/bin/searchops /opt/searchops/bin/searchops-sandbox

# TensorRT's libraries come from NVIDIA's own package index, which the builder names; their version is the bindings'.
FROM build AS build-worker-gpu
ARG NVIDIA_INDEX
ARG TENSORRT_VERSION=11.4.0.106
RUN test -n "${NVIDIA_INDEX}" || { echo "pass --build-arg NVIDIA_INDEX=<NVIDIA's package index>" >&2; exit 1; }
RUN uv sync --frozen --no-default-groups --extra gpu --no-install-project
RUN uv pip install --python /opt/searchops/bin/python --no-deps --index "${NVIDIA_INDEX}" \
    "tensorrt-cu13-libs==${TENSORRT_VERSION}"
COPY README.md LICENSE ./
COPY operator operator
COPY workers workers
RUN uv sync --frozen --inexact --no-default-groups --extra gpu --no-editable \
 && rm -f /opt/searchops/bin/searchops-operator /opt/searchops/bin/searchops /opt/searchops/bin/searchops-sandbox

# What every image shares: no root, no compiler, no uv. Kubernetes probes, so no health check here.
FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/searchops/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN groupadd --gid 65532 searchops && useradd --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin searchops
COPY LICENSE /licenses/LICENSE
WORKDIR /tmp
USER 65532:65532
LABEL org.opencontainers.image.licenses="Apache-2.0"

FROM runtime AS operator
COPY --from=build-operator /opt/searchops /opt/searchops
CMD ["searchops-operator"]

FROM runtime AS gateway
COPY --from=build-gateway /opt/searchops /opt/searchops
CMD ["searchops-worker", "gateway"]

FROM runtime AS worker-cpu
COPY --from=build-worker-cpu /opt/searchops /opt/searchops
CMD ["searchops-worker", "run"]

FROM runtime AS worker-gpu
COPY --from=build-worker-gpu /opt/searchops /opt/searchops
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
CMD ["searchops-worker", "run"]

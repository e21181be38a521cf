# Two images from one file:
#   docker build --target api    -t secateur-api .      the front end, migrations and the reconciler, no torch
#   docker build --target worker -t secateur-worker .   the same plus torch: prunes
# PIP_EXTRA_INDEX_URL adds a package index, for example the one with PyTorch's CPU-only or other CUDA builds.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/secateur/bin:$PATH

FROM base AS source
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /src
RUN python -m venv /opt/secateur
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY api api
COPY migrations migrations
COPY pruning_core pruning_core
COPY secateur secateur
COPY store store
COPY worker worker

FROM source AS build-api
RUN pip install --no-cache-dir -c constraints.txt ".[api]"

FROM source AS build-worker
RUN pip install --no-cache-dir -c constraints.txt ".[worker]"

# The volume's folder exists in the image so that a fresh named volume belongs to the service's user.
FROM base AS run
RUN useradd --system --uid 10001 --create-home secateur \
    && install -d -o secateur -g secateur /var/lib/secateur
ENV SECATEUR_DATA_DIR=/var/lib/secateur
WORKDIR /var/lib/secateur
USER 10001
VOLUME /var/lib/secateur

FROM run AS worker
COPY --from=build-worker /opt/secateur /opt/secateur
CMD ["python", "-m", "worker"]

FROM run AS api
COPY --from=build-api /opt/secateur /opt/secateur
ENV SECATEUR_HOST=0.0.0.0
EXPOSE 8571
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8571/livez', timeout=2)"]
CMD ["python", "-m", "api"]

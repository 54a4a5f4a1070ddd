# Sentinel: the daemon beside an engine, the check as a HEALTHCHECK, and the stand-in engine. docs/docker.md has the recipes.
#
#   docker build --tag sentinel-engine-monitor:0.1.0 .
#
# BASE is any image with python3 (3.11 or newer) and its venv. UID and GID are the engine's: only with both the same are
# all of its files in /proc readable without a capability.
ARG BASE=python:3.13.5-slim-bookworm

FROM ${BASE} AS build
# An index of one's own. It stays in this stage's history: one that needs a password is better given as a secret.
ARG PIP_INDEX_URL
WORKDIR /source
RUN python3 -m venv /pip
COPY pyproject.toml README.md ./
COPY scripts scripts
COPY sentinel sentinel
RUN /pip/bin/pip wheel --quiet --no-cache-dir --wheel-dir /wheels . \
 && python3 -m venv --without-pip /opt/sentinel \
 && /pip/bin/pip --python /opt/sentinel/bin/python3 install --quiet --no-cache-dir --no-index --find-links /wheels \
        sentinel-engine-monitor
# Wheels come with the debug information of their libraries: a quarter of all that is installed.
RUN command -v strip || { apt-get update -qq && apt-get install -qq --no-install-recommends binutils; }
RUN find /opt/sentinel -name '*.so' -exec strip --strip-unneeded {} +

FROM ${BASE}
ARG BASE
ARG UID=1000
ARG GID=1000
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Sentinel" \
      org.opencontainers.image.description="Watches the health and the tail latency of a low-latency engine, and says why." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /opt/sentinel /opt/sentinel
ENV PATH=/opt/sentinel/bin:${PATH}
USER ${UID}:${GID}
EXPOSE 9710
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["sentinel", "check", "--live"]
CMD ["sentinel", "run"]

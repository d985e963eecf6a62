# One static binary in an otherwise empty image: model, SQLite, certificates and time zones are inside it. BuildKit builds it
# (with Docker before version 23: DOCKER_BUILDKIT=1).
ARG RUST_IMAGE=rust:1.95-bookworm
# Where the binary comes from: `compile`, or `given`, which takes a directory made by `make image-root` as its context.
ARG BINARY=compile

# What of a clone the build needs, which .dockerignore says.
FROM scratch AS sources
COPY . /

FROM ${RUST_IMAGE} AS compile
COPY --from=sources / /src/
WORKDIR /src
# The commit, which /healthz tells: the repository stays outside.
ARG REVISION=
RUN TALLYBOX_BUILD="${REVISION}" make image-root IMAGE_ROOT=/image

FROM scratch AS given
COPY . /image/

FROM ${BINARY} AS binary

FROM scratch
ARG VERSION=0.1.0
ARG SOURCE=
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Tallybox" \
      org.opencontainers.image.description="Memory, metering and limits for AI assistants" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=binary --chmod=0755 /image/tallybox /tallybox
# A new volume takes owner and mode from here. The demo makes its directory in /tmp.
COPY --from=binary --chown=65532:65532 --chmod=0700 /image/empty/ /
USER 65532:65532
# Draining ends before Docker's own patience of 10 s does.
ENV TALLYBOX_IN_CONTAINER=1 \
    TALLYBOX_DATA_DIR=/data \
    TALLYBOX_LISTEN=0.0.0.0:8080 \
    TALLYBOX_SERVER__DRAIN_TIMEOUT=8s
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/tallybox", "healthcheck"]
ENTRYPOINT ["/tallybox"]
CMD ["serve"]

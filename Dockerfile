# One static binary in an otherwise empty image: model, SQLite, roots and time zones are inside it.
ARG RUST_IMAGE=rust:1.95-bookworm
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target x86_64-unknown-linux-gnu \
    && mkdir -p /image/data \
    && cp target/x86_64-unknown-linux-gnu/release/tallybox /image/tallybox

FROM scratch
LABEL org.opencontainers.image.title="Tallybox" \
      org.opencontainers.image.description="Memory, metering and limits for AI assistants" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image/tallybox /tallybox
# A volume takes its owner from here.
COPY --from=build --chown=65532:65532 --chmod=0700 /image/data /data
USER 65532:65532
ENV TALLYBOX_DATA_DIR=/data TALLYBOX_LISTEN=0.0.0.0:8080
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/tallybox", "healthcheck"]
ENTRYPOINT ["/tallybox"]
CMD ["serve"]

# ambientd as an image: one static binary, no shell, not root, nothing to write to.
#
#   docker build -t ambientd:dev .
FROM rust:1.95-bookworm AS build
# The C parts of the cryptography are built for musl too; its resolver needs no files of the image.
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake musl-tools \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The architecture is the builder's: x86_64 or aarch64.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(uname -m)-unknown-linux-musl" \
 && rustup target add "$target" \
 && cargo build --locked --release --target "$target" --package ambientd --bin ambientd \
 && cp "target/$target/release/ambientd" /ambientd

# For gateways, in place of stock Envoy's own image: with ambientd in it, which needs no init
# container then.
#
#   docker build --target agent -t ambientd-agent:dev .
FROM envoyproxy/envoy:distroless-v1.40.0 AS agent
COPY --from=build /ambientd /usr/local/bin/ambientd
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/ambientd"]
CMD ["agent", "--help"]

# Holds root certificates, for key sets of token issuers, and time zones.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /ambientd /usr/local/bin/ambientd
# The account of istiod's image, which PodSecurity rules may name.
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/ambientd"]
CMD ["discovery"]

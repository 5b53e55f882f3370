#!/bin/sh
# Every check of this project, on a Debian machine with a Rust toolchain; run as root. What a test needs is installed, and a
# missing thing is a failure, never a skip.
set -eu
cd "$(dirname "$0")/.."
say() { printf '\n== %s\n' "$*"; }

say 'Debian packages'
missing=
for package in busybox-static docker-registry skopeo umoci runc crun zstd xz-utils bzip2 openssh-client openssh-server \
    git python3 libcap2-bin attr passwd uidmap qemu-user-static passt slirp4netns gcc libc6-dev procps util-linux mount \
    e2fsprogs mmdebstrap tmux fuse3; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi

# The docker client; older Debian has it together with the engine.
if ! command -v docker >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends docker-cli >/dev/null 2>&1 ||
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends docker.io >/dev/null
fi

say 'cargo fmt'
cargo fmt --all --check
say 'cargo clippy'
cargo clippy --workspace --all-targets --quiet -- -D warnings
say 'cargo test'
cargo test --workspace --quiet
# What runs containers, as on a kernel without data-only layers.
say 'cargo test, all through FUSE'
CBS_LOWER_MODE=plain cargo test --quiet -p cbs-exec --test executor
CBS_LOWER_MODE=plain cargo test --quiet -p cbs --test it -- \
    road:: lifecycle:: mounts:: steps:: store_commands:: leftovers:: a_step_that_fails kill_9_during_a_pull
say 'conformance'
sh tests/conformance/run.sh

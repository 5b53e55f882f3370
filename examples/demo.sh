#!/bin/sh
# Sets up what cbs needs on a Debian machine with a Rust toolchain and runs its main job, every part real:
# a registry on loopback, filled with Debian images made from packages; a multi-stage build through a bake file; the
# image checked with skopeo and umoci and run with runc. Run as root. DEMO_DIR (default: target/demo) keeps everything.
set -eu
cd "$(dirname "$0")/.."
top=$(pwd)
dir=${DEMO_DIR:-$top/target/demo}
port=${DEMO_PORT:-5055}
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

if [ -z "${DEMO_SKIP_INSTALL:-}" ]; then
    say 'installing Debian packages'
    missing=
    for package in mmdebstrap docker-registry skopeo umoci runc python3 build-essential; do
        dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
    fi
fi

say 'building cbs'
cargo build --release --quiet
cbs=${CARGO_TARGET_DIR:-$top/target}/release/cbs

say "starting a registry on 127.0.0.1:$port"
mkdir -p "$dir"
cat > "$dir/registry.yml" <<YML
version: 0.1
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:$port"}
YML
docker-registry serve "$dir/registry.yml" > "$dir/registry.log" 2>&1 &
registry=$!
trap 'kill $registry 2>/dev/null || true' EXIT INT TERM
for _ in $(seq 50); do
    python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/v2/')" 2>/dev/null && break
    sleep 0.1
done
python3 examples/push-debian-bases.py --registry "127.0.0.1:$port" --work "$dir/bases"

export CBS_STORE="$dir/store" BASE="127.0.0.1:$port/demo/debian" BUILD_TAG=build RUN_TAG=run VERSION=1.2.3
build() { "$cbs" realize examples/app/docker-bake.hcl#app-release --output "type=oci,dest=$1"; }

say 'cbs realize examples/app/docker-bake.hcl#app-release'
build "$dir/app.tar"
say 'the same again: nothing runs, nothing is pulled'
build "$dir/again.tar"
cmp "$dir/app.tar" "$dir/again.tar" && echo 'byte-identical'

say 'skopeo inspect'
skopeo inspect "oci-archive:$dir/app.tar" | head -20

say 'umoci unpack, runc run'
rm -rf "$dir/layout" "$dir/bundle"
skopeo copy --quiet "oci-archive:$dir/app.tar" "oci:$dir/layout:app"
umoci unpack --image "$dir/layout:app" "$dir/bundle"
python3 - "$dir/bundle/config.json" <<'PY'
import json, sys
path = sys.argv[1]
config = json.load(open(path))
config["process"]["terminal"] = False
json.dump(config, open(path, "w"))
PY
runc --root "$dir/runc" run --bundle "$dir/bundle" "cbs-demo-$$"

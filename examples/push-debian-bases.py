#!/usr/bin/env python3
"""Fill a registry with two Debian images made from Debian packages.

  push-debian-bases.py --registry 127.0.0.1:5000 --work DIR [--repository demo/debian]

Tags: `build` (minbase with gcc, libc6-dev and make) and `run` (minbase). Needs mmdebstrap and a reachable Debian
mirror; the root file systems are kept in DIR and made only once. Only Python's standard library is used.
"""
import argparse
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "conformance", "dockerfile"))
from ocilib import Image, Registry, sha  # noqa: E402

EPOCH = "1577836800"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TAGS = {"build": "gcc,libc6-dev,make", "run": ""}


def rootfs(work, tag, include):
    """The gzip-compressed root file system of a tag, made when it is not there yet."""
    path = os.path.join(work, "debian-%s.tar" % tag)
    if not os.path.exists(path + ".gz"):
        cmd = ["mmdebstrap", "--variant=minbase", "--quiet"] + (["--include=" + include] if include else [])
        subprocess.run(cmd + ["bookworm", path], check=True, env=dict(os.environ, SOURCE_DATE_EPOCH=EPOCH))
        subprocess.run(["gzip", "-n", "-1", path], check=True)
    with open(path + ".gz", "rb") as file:
        compressed = file.read()
    raw = subprocess.run(["gzip", "-dc", path + ".gz"], stdout=subprocess.PIPE, check=True).stdout
    return sha(raw), compressed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--repository", default="demo/debian")
    parser.add_argument("--work", required=True)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    registry = Registry(args.registry)
    for tag, include in TAGS.items():
        image = Image([rootfs(args.work, tag, include)], {"Env": [PATH], "Cmd": ["bash"]})
        registry.push_image(args.repository, tag, [image])
        print("pushed %s/%s:%s" % (args.registry, args.repository, tag))


if __name__ == "__main__":
    main()

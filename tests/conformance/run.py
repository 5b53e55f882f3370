#!/usr/bin/env python3
"""Run the public conformance cases against a cbs binary and hold them against the list of known failures.

  run.py --cbs target/debug/cbs [--suite bake] [--suite dockerfile] [--jobs N]

Starts its own registry (Debian's docker-registry) on loopback and its own store, both in a temporary folder. A case
that fails and is not in known-failures.txt is an error, and so is one that is in it and passes: what passes cannot slip
back. The last line is `N passed, N failed`, the known failures not counted.
"""
import argparse
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def known_failures(suite):
    """Case names listed for a suite: lines `suite/name  # why`."""
    names = set()
    with open(os.path.join(HERE, "known-failures.txt"), encoding="utf-8") as lines:
        for line in lines:
            line = line.split("#")[0].strip()
            if line.startswith(suite + "/"):
                names.add(line.split("/", 1)[1])
    return names


# The address the cases were recorded with: one of them copies its own Dockerfile, which names it.
REGISTRY = ("127.0.0.1", 5000)


def start_registry(work):
    """Starts a registry, or uses the one that answers at its address, and fills it with the base images."""
    address = "%s:%d" % REGISTRY
    process = None
    if not answers():
        config = os.path.join(work, "registry.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("version: 0.1\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: %s}\n"
                       % (work, address))
        log = open(os.path.join(work, "registry.log"), "wb")
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
        for _ in range(100):
            if answers():
                break
            time.sleep(0.1)
    setup = [sys.executable, os.path.join(HERE, "dockerfile", "setup_bases.py"), "--registry", address]
    subprocess.run(setup, check=True, stdout=subprocess.DEVNULL)
    return process, address


def answers():
    try:
        socket.create_connection(REGISTRY, timeout=1).close()
        return True
    except OSError:
        return False


def run_suite(suite, command, env):
    """Returns (passed, failed names)."""
    print("== %s" % suite, flush=True)
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, errors="replace").stdout
    totals = re.findall(r"^(\d+) passed, (\d+) failed", output, re.M)
    if not totals:
        sys.exit("the %s runner gave no totals:\n%s" % (suite, output[-3000:]))
    failed = set(re.findall(r"^FAIL:? (\S+?):?$", output, re.M) + re.findall(r"^FAIL:? (\S+?):? ", output, re.M))
    if len(failed) != int(totals[-1][1]):
        sys.exit("the %s runner counts %s failures and names %d" % (suite, totals[-1][1], len(failed)))
    known = known_failures(suite)
    unexpected = failed - known
    for block in re.split(r"^(?=FAIL)", output, flags=re.M)[1:]:
        name = re.match(r"FAIL:? (\S+?):?\s", block)
        if name and name[1] in unexpected:
            print(block.rstrip())
    recovered = known - failed
    for name in sorted(recovered):
        print("%s/%s passes: take it out of known-failures.txt" % (suite, name))
    print("%s passed, %d failed, %d of them known" % (totals[-1][0], len(failed), len(failed & known)), flush=True)
    return int(totals[-1][0]), unexpected | recovered


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cbs", required=True)
    parser.add_argument("--suite", action="append", choices=["bake", "dockerfile"])
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    cbs = shlex.quote(os.path.abspath(args.cbs))
    suites = args.suite or ["bake", "dockerfile"]
    passed, wrong = 0, set()
    with tempfile.TemporaryDirectory(prefix="cbs-conformance-") as work:
        env = dict(os.environ, CBS_STORE=os.path.join(work, "store"))
        registry = None
        try:
            if "bake" in suites:
                command = [sys.executable, os.path.join(HERE, "bake", "run_bake_cases.py"), "--cmd", cbs + " bake --print"]
                count, bad = run_suite("bake", command, env)
                passed += count
                wrong |= bad
            if "dockerfile" in suites:
                registry, address = start_registry(work)
                template = cbs + (" build --progress plain {opts} -f {dockerfile} "
                                  "--output type=oci,dest={output}{output_opts} {context}")
                command = [sys.executable, os.path.join(HERE, "dockerfile", "run_dockerfile_cases.py"),
                           "--build-cmd", template, "--registry", address, "--jobs", str(args.jobs),
                           "--http-port", str(free_port())]
                count, bad = run_suite("dockerfile", command, env)
                passed += count
                wrong |= bad
        finally:
            if registry:
                registry.kill()
                registry.wait()
    print("%d passed, %d failed" % (passed, len(wrong)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

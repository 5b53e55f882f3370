#!/usr/bin/env python3
"""Whole-program scenarios: run cbs, run the physical baseline beside it, print seconds, peak memory and the ratio.

  scenarios.py --cbs target/release/cbs [--only NAME|GLOB …] [--rounds 3] [--scale 1.0] [--lower-mode MODE] [--json FILE]

Inputs are generated (seeded), the base image is made from Debian's busybox-static and reaches cbs as an OCI layout, so no
registry is needed but for the pull (Debian's docker-registry). Each scenario runs in its own store on the disk of --work
(default: a temporary folder). Needs root, busybox-static and gzip, zstd, tar. Only Python's standard library is used.
`million` takes minutes and 10 GB, and runs only when named.
"""
import argparse
import fnmatch
import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "conformance", "dockerfile"))
import ocilib  # noqa: E402
import setup_bases  # noqa: E402
sys.path.insert(0, HERE)
from scenario_rows import MoreRows  # noqa: E402

ROWS = ("run_steps", "many_steps", "graph", "parallel_stages", "big_context", "copy_from", "export", "pull", "read_heavy",
        "compile_like", "browse")
ON_REQUEST = ("million",)


class Run:
    """Wall seconds and peak resident bytes of one command and its children."""

    def __init__(self, seconds, rss, plain=None):
        self.seconds, self.rss = seconds, rss
        # The same with the plain lower layer.
        self.plain = plain


def run(command, **kwargs):
    """Through `launch.py`: what this process holds would count as the command's."""
    report, told = os.pipe()
    launcher = [sys.executable, "-I", "-S", os.path.join(HERE, "launch.py"), str(told), *command]
    with os.fdopen(report, "rb") as figures:
        result = subprocess.run(launcher, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                pass_fds=[told], check=False, **kwargs)
        os.close(told)
        code, seconds, rss = figures.read().split() or (b"-1", 0, 0)
    if int(code) or result.returncode:
        sys.exit("%s failed (%d):\n%s" % (command, int(code), result.stdout.decode(errors="replace")[-3000:]))
    return Run(float(seconds), int(rss) * 1024)


class Bench(MoreRows):
    def __init__(self, args, work):
        self.args, self.work, self.rows, self.counter = args, work, [], 0
        image = ocilib.Image([setup_bases.busybox_layer()], {"Env": [setup_bases.PATH]})
        layout = self.path("busybox")
        self.base = "oci-layout://%s@%s" % (layout, ocilib.write_layout(layout, [image]))
        self.rootfs = self.path("rootfs")
        layer = next(blob for blob in image.blobs.values() if blob[:2] == b"\x1f\x8b")
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as tar:
            tar.extractall(self.rootfs)

    def path(self, name):
        return os.path.join(self.work, name)

    def context(self, name, dockerfile):
        folder = self.path(name)
        os.makedirs(folder, exist_ok=True)
        self.write(folder, dockerfile)
        return folder

    @staticmethod
    def write(folder, dockerfile):
        with open(os.path.join(folder, "Dockerfile"), "w", encoding="utf-8") as file:
            file.write(dockerfile)

    def cbs(self, store, context, *more, output="type=cacheonly"):
        return self.command(store, "build", "--progress", "none", "--build-context", "base=" + self.base,
                            "--output", output, *more, context)

    def command(self, store, *args):
        return run([self.args.cbs, "--store", self.path(store), *args])

    @staticmethod
    def run(command, **kwargs):
        return run(command, **kwargs)

    def fresh(self, store):
        shutil.rmtree(self.path(store), ignore_errors=True)
        return store

    def best(self, measure):
        return min((measure() for _ in range(self.args.rounds)), key=lambda result: result.seconds)

    def both(self, measure, before=lambda: None):
        """For what runs containers: the best round of each lower layer, `before` done for each."""
        before()
        result = self.best(measure)
        if self.args.lower_mode == "both":
            os.environ["CBS_LOWER_MODE"] = "plain"
            before()
            result.plain = self.best(measure)
            del os.environ["CBS_LOWER_MODE"]
        return result

    def row(self, name, result, limit, baseline, budget):
        ratio = result.seconds / baseline.seconds
        self.rows.append({"scenario": name, "seconds": round(result.seconds, 4), "peak_rss_mb": round(result.rss / 1e6, 1),
                          "baseline": limit, "baseline_seconds": round(baseline.seconds, 4), "ratio": round(ratio, 2),
                          "budget": budget})
        plain = ""
        if result.plain:
            plain_ratio = result.plain.seconds / baseline.seconds
            self.rows[-1].update(plain_seconds=round(result.plain.seconds, 4), plain_ratio=round(plain_ratio, 2),
                                 plain_peak_rss_mb=round(result.plain.rss / 1e6, 1))
            plain = "   plain %.3f s %.2fx" % (result.plain.seconds, plain_ratio)
        print("%-38s %8.3f s %7.1f MB   %-30s %8.3f s  %6.2fx   budget %s%s" % (
            name, result.seconds, result.rss / 1e6, limit, baseline.seconds, ratio, budget, plain), flush=True)

    # -- inputs

    @staticmethod
    def files(folder, count, mean):
        rng = random.Random(count)
        for index in range(count):
            directory = os.path.join(folder, "d%03d" % (index // 100), "e%02d" % (index // 10 % 10))
            if index % 10 == 0:
                os.makedirs(directory, exist_ok=True)
            with open(os.path.join(directory, "f%d" % index), "wb") as file:
                file.write(rng.randbytes(max(1, int(rng.expovariate(1 / mean)))))

    @staticmethod
    def large_files(folder, megabytes):
        """Half text-like, half incompressible, as a root file system is."""
        rng = random.Random(megabytes)
        words = [rng.randbytes(6).hex().encode() for _ in range(4000)]
        os.makedirs(folder, exist_ok=True)
        for index in range(megabytes // 4):
            text = b" ".join(rng.choices(words, k=(4 << 20) // 13))[:4 << 20]
            with open(os.path.join(folder, "blob%d" % index), "wb") as file:
                file.write(rng.randbytes(4 << 20) if index % 2 else text)

    # -- scenarios

    def run_steps(self):
        context = self.context("steps", "FROM base\n" + "".join("RUN echo %d > /f%d\n" % (i, i) for i in range(50)))
        script = "for i in $(seq 50); do unshare -mpuif chroot %s /bin/sh -c 'echo 1 >/dev/null'; done" % self.rootfs
        bare = self.best(lambda: run(["sh", "-c", script]))
        self.row("50 RUN steps, cold", self.both(lambda: self.cbs(self.fresh("steps-store"), context)),
                 "50 x unshare, chroot, sh", bare, "0.7 s")
        start = self.best(lambda: run([self.args.cbs, "--version"]))
        self.row("50 RUN steps, nothing changed", self.best(lambda: self.cbs("steps-store", context)),
                 "process start", start, "0.02 s")

    def parallel_stages(self):
        stages = ["FROM base AS s%d\nRUN sleep 0.2; echo %d > /out\n" % (i, i) for i in range(64)]
        collect = "FROM scratch\n" + "".join("COPY --from=s%d /out /out%d\n" % (i, i) for i in range(64))
        context = self.context("parallel", "".join(stages) + collect)
        self.row("64 parallel stages sleeping 0.2 s",
                 self.both(lambda: self.cbs(self.fresh("parallel-store"), context, "--jobs", "64")),
                 "sleep 0.2", run(["sleep", "0.2"]), "0.8 s")

    def big_context(self):
        count = int(50_000 * self.args.scale)
        context = self.context("files", "FROM scratch\nCOPY . /\n")
        self.files(os.path.join(context, "data"), count, 4000)

        def copy():
            shutil.rmtree(self.path("copy"), ignore_errors=True)
            return run(["cp", "-a", context, self.path("copy")])
        baseline = self.best(copy)
        self.row("context of %d files, cold COPY" % count, self.best(lambda: self.cbs(self.fresh("files-store"), context)),
                 "cp -a", baseline, "1.5 s")
        stat = self.best(lambda: run(["find", context, "-type", "f", "-size", "+100G"]))
        self.row("same, nothing changed", self.best(lambda: self.cbs("files-store", context)), "find -size", stat, "0.25 s")

        def change():
            self.counter += 1
            with open(os.path.join(context, "data", "d000", "e00", "f0"), "w", encoding="utf-8") as file:
                file.write("changed %d %d" % (self.counter, time.time_ns()))
            return self.cbs("files-store", context)
        self.row("same, one file changed", self.best(change), "find -size", stat, "0.3 s")

    def copy_from(self):
        count = int(20_000 * self.args.scale)
        data = "FROM scratch AS data\nCOPY . /data/\nFROM base AS out\n"
        context = self.context("copyfrom", data)
        self.files(os.path.join(context, "small"), count, 4000)
        self.large_files(os.path.join(context, "large"), int(512 * self.args.scale))
        self.write(context, data + "COPY --from=data /data/Dockerfile /x\n")
        self.cbs(self.fresh("copyfrom-store"), context)
        before = self.best(lambda: self.cbs("copyfrom-store", context))
        copies = data + "COPY --from=data /data/small /data/large /a/\nCOPY --from=data /data/small /data/large /b/\n"
        self.write(context, copies)
        self.row("two COPY --from of 512 MB + %d files" % count, self.cbs("copyfrom-store", context),
                 "no-op build without them", before, "+ 0.05 s")

    def export(self):
        megabytes = int(1024 * self.args.scale)
        context = self.context("rootfs", "FROM scratch\nCOPY files /files\n")
        self.large_files(os.path.join(context, "files"), megabytes)
        self.cbs(self.fresh("export-store"), context)
        for codec, tool, budget in (("gzip", "gzip -6", "8 s"), ("zstd", "zstd -3 -T0", "3 s")):
            tar = "tar -C %s -cf - files | %s > %s" % (context, tool, self.path("base.tar." + codec))
            baseline = run(["sh", "-c", tar])
            out = self.path("out-%s.tar" % codec)
            spec = "type=oci,dest=%s,compression=%s" % (out, codec)
            self.row("OCI export of %d MB, %s" % (megabytes, codec), self.cbs("export-store", context, output=spec),
                     "tar | " + tool, baseline, budget)
            copy = self.best(lambda: run(["cp", out, out + ".copy"]))
            self.row("same, again", self.best(lambda: self.cbs("export-store", context, output=spec)),
                     "cp of the output", copy, "1.3 x")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cbs", required=True)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the inputs; below 1 for a quick look")
    parser.add_argument("--lower-mode", choices=("both", "data-only", "plain"), default="both",
                        help="what RUN's lower layer is; both: the best there is, and plain beside it")
    parser.add_argument("--work")
    parser.add_argument("--json")
    args = parser.parse_args()
    args.cbs = os.path.abspath(args.cbs)
    os.environ.pop("CBS_LOWER_MODE", None)
    if args.lower_mode != "both":
        os.environ["CBS_LOWER_MODE"] = args.lower_mode
    with tempfile.TemporaryDirectory(prefix="cbs-bench-", dir=args.work) as work:
        bench = Bench(args, work)
        for name in ROWS + ON_REQUEST:
            named = any(fnmatch.fnmatch(name, glob) for glob in args.only)
            if named or not args.only and name in ROWS:
                getattr(bench, name)()
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(bench.rows, file, indent=1)


if __name__ == "__main__":
    main()

"""The rows of `scenarios.py` that need more than a context and a Dockerfile."""
import hashlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import tarfile
import time

import ocilib
import setup_bases
from llb import wide_graph


class MoreRows:
    """Mixed into `Bench`, which has the measuring."""

    def many_steps(self):
        count = int(1000 * self.args.scale)
        context = self.context("many", "FROM base\n" + "".join("RUN echo %d > /f%d\n" % (i, i % 9) for i in range(count)))
        self.cbs(self.fresh("many-store"), context)
        start = self.best(lambda: self.run([self.args.cbs, "--version"]))
        self.row("%d RUN steps, nothing changed" % count, self.best(lambda: self.cbs("many-store", context)),
                 "process start", start, "0.1 s")

    def graph(self):
        start = self.best(lambda: self.run([self.args.cbs, "--version"]))
        for vertices in (int(5_000 * self.args.scale), int(10_000 * self.args.scale)):
            path = self.path("graph-%d.pb" % vertices)
            with open(path, "wb") as file:
                file.write(wide_graph(vertices))

            def realize():
                return self.command("graph-store", "realize", path, "--progress", "none")  # noqa: B023
            self.fresh("graph-store")
            realize()
            self.row("graph of %d vertices, nothing changed" % vertices, self.best(realize), "process start", start, "1 s")

    def pull(self):
        """A base image of one layer, asked for by a RUN, so that all of it must be in the store."""
        packed = self.path("pulled.tar.gz")
        port = free_port()
        config = self.path("registry.yml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\n"
                       "http: {addr: '127.0.0.1:%d'}\n" % (self.path("registry"), port))
        with open(self.path("registry.log"), "wb") as log:
            server = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
        try:
            wait_for(port)
            push_base(port, int(75 * self.args.scale) or 1, packed)
            context = self.context("pulls", "FROM 127.0.0.1:%d/base:1\nRUN true\n" % port)
            script = "gzip -dc %s | tee %s | sha256sum && sync %s" % (packed, self.path("unpacked"), self.path("unpacked"))
            baseline = self.best(lambda: self.run(["sh", "-c", script]))
            self.row("pull and use a layer of %d MB" % (os.path.getsize(packed) // 1_000_000),
                     self.both(lambda: self.cbs(self.fresh("pull-store"), context)),
                     "gzip -d, sha256, write, sync", baseline, "1.5 x")
        finally:
            server.terminate()
            server.wait()

    def over_overlay(self, root, script):
        """The script in a chroot of plain overlayfs over ext4."""
        mnt, upper, work = self.path("mnt"), self.path("up"), self.path("wk")
        for folder in (mnt, upper, work):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
        mount = ("mount -t overlay overlay -o lowerdir=%s,upperdir=%s,workdir=%s %s && mount -t proc proc %s/proc && "
                 "chroot %s /bin/sh -c '%s'" % (root, upper, work, mnt, mnt, mnt, script))
        return self.run(["unshare", "-mpf", "sh", "-c", mount])

    def read_heavy(self):
        """What reads a root file system again and again: find, tar, grep -r, and 300 processes."""
        head = "FROM scratch AS data\nCOPY . /data/\nFROM base AS warm\nCOPY --from=data /data /data\nFROM warm\n"
        context = self.context("reads", head)
        self.files(os.path.join(context, "tree"), int(8_000 * self.args.scale), 8000)
        self.large_files(os.path.join(context, "large"), int(64 * self.args.scale))
        script = ("for i in 1 2 3; do find /data -type f | wc -l; tar -cf - /data | cat > /dev/null; "
                  "grep -r nosuchword /data | wc -l; done; for i in $(seq 300); do /bin/true; done")
        root = self.path("reads-rootfs")
        shutil.copytree(self.rootfs, root, symlinks=True)
        subprocess.run(["cp", "-a", context, os.path.join(root, "data")], check=True)
        baseline = self.best(lambda: self.over_overlay(root, script))

        def build():
            self.counter += 1
            self.write(context, head + "RUN : %d; %s\n" % (self.counter, script))
            return self.cbs("reads-store", context)
        def prepare():
            self.write(context, head)
            self.cbs(self.fresh("reads-store"), context)
        self.row("read-heavy RUN", self.both(build, prepare), "overlay over ext4", baseline, "1.05 x")

    def compile_like(self):
        """20,000 files of 3 KB written, and taken into the store."""
        count = int(200 * self.args.scale)
        script = ("t=$(od /bin/busybox | head -c 3000); for d in $(seq %d); do mkdir -p /obj/$d; for f in $(seq 100); do "
                  "echo \"$d.$f $t\" > /obj/$d/$f.o; done; done" % count)
        baseline = self.best(lambda: self.over_overlay(self.rootfs, script))
        context = self.context("compiles", "FROM base\nRUN true\n")

        def prepare():
            self.write(context, "FROM base\nRUN true\n")
            self.cbs(self.fresh("compile-store"), context)

        def build():
            self.counter += 1
            self.write(context, "FROM base\nRUN : %d; %s\n" % (self.counter, script))
            return self.cbs("compile-store", context)
        self.row("RUN that writes %d files" % (count * 100), self.both(build, prepare), "overlay over ext4", baseline, "1.05 x")

    def browse(self):
        """Reading a tree through `cbs mount`, each time mounted anew, against the same files on ext4, both warm."""
        context = self.context("browsed", "FROM scratch\nCOPY . /\n")
        self.files(os.path.join(context, "tree"), int(10_000 * self.args.scale), 8000)
        self.large_files(os.path.join(context, "large"), int(256 * self.args.scale))
        self.command(self.fresh("browse-store"), "build", "--progress", "none", context)
        for name, command in (("find", "find . | wc -l"), ("stat", "find . -print0 | xargs -0 stat | wc -l"),
                              ("tar", "tar -cf - . | cat > /dev/null"), ("cat", "cat large/* > /dev/null")):
            baseline = self.best(lambda: self.run(["sh", "-c", command], cwd=context))  # noqa: B023
            self.row("cbs mount, " + name, self.best(lambda: self.mounted(command)), "ext4", baseline, "-")  # noqa: B023

    def mounted(self, command):
        mount = self.path("browse")
        server = subprocess.Popen([self.args.cbs, "--store", self.path("browse-store"), "mount", mount],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            tree = None
            while tree is None:
                time.sleep(0.02)
                tree = next((at for at, folders, _ in os.walk(mount, followlinks=True) if "tree" in folders), None)
            return self.run(["sh", "-c", command], cwd=tree)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()

    def million(self):
        count = int(1_000_000 * self.args.scale)
        self.million_copied(count)
        context = self.context("million", "FROM scratch\nADD files.tar /data/\n")
        with tarfile.open(os.path.join(context, "files.tar"), "w") as tar:
            many_files(tar, count)
        unpacked = self.best(lambda: self.run(["sh", "-c", "rm -rf x && mkdir x && tar -xf files.tar -C x && rm -rf x"],
                                              cwd=context))
        self.row("ADD of a tar of %d files" % count, self.cbs(self.fresh("million-store"), context), "tar -x, rm", unpacked, "-")
        start = self.best(lambda: self.run([self.args.cbs, "--version"]))
        self.row("gc --dry-run, %d files" % count, self.best(lambda: self.command("million-store", "gc", "--dry-run")),
                 "process start", start, "5 s")
        self.row("du, %d files" % count, self.best(lambda: self.command("million-store", "du")), "process start", start, "1 s")
        data = "FROM scratch AS data\nADD files.tar /data/\nFROM scratch\n"
        self.write(context, data + "COPY --from=data /data/0 /x\n")
        self.cbs("million-store", context)
        before = self.best(lambda: self.cbs("million-store", context))
        self.write(context, data + "COPY --from=data /data /a\nCOPY --from=data /data /b\n")
        self.row("two COPY --from of %d files" % count, self.cbs("million-store", context),
                 "no-op build without them", before, "+ 0.05 s")


    def million_copied(self, count):
        """The same files on the disk, as a context."""
        context = self.context("million-files", "FROM scratch\nCOPY . /\n")
        for index in range(count):
            folder = os.path.join(context, "data", str(index // 1000))
            if index % 1000 == 0:
                os.makedirs(folder)
            with open(os.path.join(folder, str(index)), "wb") as file:
                file.write(small_file(index))
        stat = self.run(["find", context, "-type", "f", "-size", "+100G"])
        self.row("context of %d files, cold COPY" % count, self.cbs(self.fresh("million-store"), context),
                 "find -size, cold", stat, "-")
        stat = self.best(lambda: self.run(["find", context, "-type", "f", "-size", "+100G"]))
        self.row("same, nothing changed", self.best(lambda: self.cbs("million-store", context)), "find -size", stat, "-")
        shutil.rmtree(context)


def small_file(index):
    return hashlib.sha256(b"%d" % index).digest()


def many_files(tar, count):
    """Small files of different content, 1,000 a folder."""
    for index in range(count):
        info = tarfile.TarInfo("%d/%d" % (index // 1000, index))
        data = small_file(index)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        # It remembers all of them.
        tar.members.clear()


def push_base(port, pieces, packed):
    """Makes an image with a layer of 2 MB a piece, pushes it, and writes the layer to `packed`."""
    rng = random.Random(7)
    layer = ocilib.Layer()
    words = [rng.randbytes(6).hex().encode() for _ in range(4000)]
    for index in range(pieces):
        text = b" ".join(rng.choices(words, k=(2 << 20) // 13))
        layer.add("usr/lib%d" % index, data=rng.randbytes(1_600_000) + text)
    image = ocilib.Image([setup_bases.busybox_layer(), layer.finish()], {"Env": [setup_bases.PATH]})
    with open(packed, "wb") as file:
        file.write(max(image.blobs.values(), key=len))
    ocilib.Registry("127.0.0.1:%d" % port).push_image("base", "1", [image])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit("docker-registry did not start")

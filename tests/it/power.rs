//! Power losses: the store lies on a disk of its own, and after a kill only that counts which had reached the disk.
//!
//! ```text
//! ext4 in a file ─ loop ─ cbs at work ─ SIGKILL ─ copy of the file, unflushed pages not in it ─ mount ─ another boot
//!                    ▲                                                                                  │
//!                    └────────────────── the next round goes on with it ◄───────────────────────────────┘
//! ```
//! The file system orders nothing (`data=writeback`) and writes nothing by itself for the time of a round (`commit`), so
//! files are found empty, full of zeros or of what had been there before, as the worst of disks would have it. What does
//! get there is what cbs syncs, and now and then a file and all metadata, by chance. `CBS_POWER_LOSSES` is how often.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::crash::{Chance, setting};
use crate::env::{Said, TestEnv};

const DOCKERFILE: &str = r#"FROM scratch AS base
COPY rootfs /
ARG ROUND
RUN i=0; while [ $i -lt 30 ]; do echo "$ROUND $i" > /f$i; i=$((i+1)); done; head -c 150000 /bin/busybox > /large
RUN cat /f* /large > /all; rm /f3; echo "$ROUND done" > /end
"#;

/// Builds differ in this.
const ROUNDS: u64 = 3;

/// A disk that can lose its power.
struct Disk {
    env: TestEnv,
    image: PathBuf,
    boot: u64,
}

impl Disk {
    fn new() -> Self {
        let env = TestEnv::new();
        let image = env.path("disk.0");
        fs::File::create(&image)
            .and_then(|file| file.set_len(64 << 20))
            .expect("make a disk");
        env.tool(
            "mkfs.ext4",
            &[
                "-q",
                "-E",
                "nodiscard,root_owner=0:0",
                "-m",
                "0",
                image.to_str().expect("path"),
            ],
        )
        .ok();
        fs::create_dir(env.path("store")).expect("mkdir");
        let disk = Self { env, image, boot: 0 };
        disk.mount("delalloc");
        // The store makes its folders beside what a file system has from the start.
        disk
    }

    fn mount(&self, allocation: &str) {
        let options = format!("loop,data=writeback,commit=300,{allocation}");
        let image = self.image.to_str().expect("path");
        self.env
            .tool("mount", &["-t", "ext4", "-o", &options, image, &self.env.at("store")])
            .ok();
    }

    /// Only what was written by now is on the disk that the next boot sees.
    fn lose_power(&mut self, allocation: &str) {
        self.boot += 1;
        let next = self.env.path(&format!("disk.{}", self.boot));
        let (from, to) = (self.image.to_str().expect("path"), next.to_str().expect("path"));
        self.env.tool("cp", &["--sparse=always", from, to]).ok();
        self.env.tool("umount", &[&self.env.at("store")]).ok();
        fs::remove_file(&self.image).expect("remove the old disk");
        self.image = next;
        self.mount(allocation);
    }

    /// A command in the boot of now.
    fn command(&self, words: &[&str]) -> Command {
        let boot = self.env.path("boot_id");
        fs::write(&boot, format!("00000000-0000-0000-0000-{:012}\n", self.boot)).expect("write");
        let script = format!(
            "mount --bind '{}' /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"",
            boot.display()
        );
        let mut command = self.env.command("unshare");
        command
            .args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_cbs")])
            .args(words);
        command
    }

    fn cbs(&self, words: &[&str]) -> Said {
        self.command(words).output().expect("unshare starts").into()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What a failed test leaves running holds it; it goes with the last user.
        self.env.tool("umount", &["-l", &self.env.at("store")]);
    }
}

#[test]
fn after_a_power_loss_nothing_wrong_is_served_as_root() {
    let mut chance = Chance::new(setting("CBS_CRASH_SEED", 1), "power");
    let mut disk = Disk::new();
    disk.env.write("ctx/Dockerfile", DOCKERFILE);
    disk.env.busybox("ctx/rootfs");
    let (wanted, usual) = references(&disk);
    for number in 0..setting("CBS_POWER_LOSSES", 14) {
        let round = number % ROUNDS;
        let allocation = if chance.below(2) == 0 { "delalloc" } else { "nodelalloc" };
        work_until(&disk, round, chance.instant(usual * 5 / 4), &mut chance);
        disk.lose_power(allocation);
        read_only(&disk);
        // The next build brings the store in order and gives what it always gives.
        let said = build(&disk, round);
        assert_eq!(said.code, 0, "loss {number}:\n{}", said.stderr);
        assert!(
            archive(&disk) == wanted[round as usize],
            "loss {number}: a build gives other bytes"
        );
        let said = disk.cbs(&["store", "verify"]);
        assert!(
            said.stdout.contains("all as named"),
            "loss {number}:\n{}{}",
            said.stdout,
            said.stderr
        );
        if chance.below(4) == 0 {
            disk.cbs(&["gc", "--all"]).ok();
        }
    }
}

/// What builds give in a quiet store, and how long the first takes.
fn references(disk: &Disk) -> (Vec<Vec<u8>>, Duration) {
    let quiet = disk.env.at("quiet");
    let mut wanted = Vec::new();
    let start = Instant::now();
    let mut usual = Duration::ZERO;
    for round in 0..ROUNDS {
        let words = arguments(disk, round);
        let words: Vec<&str> = ["--store", &quiet]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .collect();
        disk.cbs(&words).ok();
        wanted.push(archive(disk));
        usual = usual.max(start.elapsed() / (round as u32 + 1));
    }
    (wanted, usual)
}

fn arguments(disk: &Disk, round: u64) -> Vec<String> {
    let output = format!("type=oci,compression=zstd,dest={}", disk.env.at("out.tar"));
    let argument = format!("ROUND={round}");
    [
        "build",
        "--build-arg",
        &argument,
        "--output",
        &output,
        &disk.env.at("ctx"),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn archive(disk: &Disk) -> Vec<u8> {
    fs::read(disk.env.path("out.tar")).expect("an archive")
}

fn build(disk: &Disk, round: u64) -> Said {
    let words = arguments(disk, round);
    disk.cbs(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Builds, or builds and collects, until it is killed; some of what it writes gets to the disk by chance.
fn work_until(disk: &Disk, round: u64, end: Duration, chance: &mut Chance) {
    let words = arguments(disk, round);
    let mut commands = vec![words.iter().map(String::as_str).collect::<Vec<_>>()];
    if chance.below(3) == 0 {
        // Something else was kept, and is given up.
        disk.cbs(&["store", "unroot", &disk.env.at("ctx")]);
        commands.push(vec!["gc", "--all"]);
    }
    let mut running: Vec<_> = commands
        .iter()
        .map(|words| {
            disk.command(words)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start")
        })
        .collect();
    let start = Instant::now();
    while start.elapsed() < end {
        std::thread::sleep(chance.instant(end / 4));
        if chance.below(2) == 0 {
            // All metadata is committed with it; the data of other files is not.
            let side = disk.env.path("store/side");
            fs::write(&side, b"x")
                .and_then(|()| fs::File::open(&side)?.sync_all())
                .expect("sync");
        }
        let files = files_below(&disk.env.path("store"));
        if chance.below(2) == 0 && !files.is_empty() {
            let file = &files[chance.below(files.len() as u64) as usize];
            // It may be gone.
            fs::File::open(file)
                .and_then(|file| file.sync_data())
                .unwrap_or_default();
        }
    }
    for child in &mut running {
        child.kill().unwrap_or_default();
    }
    for mut child in running {
        child.wait().expect("wait");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// Before anything could be mended: what is served at all is right.
fn read_only(disk: &Disk) {
    let root = disk.env.at("ctx");
    let busybox = fs::read(disk.env.path("ctx/rootfs/bin/busybox")).expect("busybox");
    let cat = |path: &str| {
        let output = disk
            .command(&["store", "cat", &format!("{root}:{path}")])
            .output()
            .expect("cbs starts");
        (output.status.success(), output.stdout)
    };
    match cat("/large") {
        (true, bytes) => assert!(bytes == busybox[..150_000], "wrong bytes were served"),
        (false, bytes) => assert!(busybox.starts_with(&bytes), "wrong bytes were served"),
    }
    if let (true, bytes) = cat("/end") {
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            (0..ROUNDS).any(|round| text == format!("{round} done\n")),
            "wrong bytes were served: {text}"
        );
    }
}

//! What reading a tree through FUSE and overlayfs costs, against the directory it was made from.
//!
//! `cargo run --release -p cbs-fuse --example browse_bench [-- ROOTFS]`, as root. Without a root file system of yours it
//! makes one from this machine's Python, documentation and a few programs. Prints milliseconds for the plain directory
//! and ratios for the rest: `first` is a tree the kernel has never seen (all data in the page cache), `warm` any later
//! time. Each number is the median of interleaved rounds.

use std::error::Error;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use cbs_fuse::{
    BrowseConfig, BrowseMount, BrowseRoots, DEFAULT_ENTRY_BUDGET, ImageConfig, LowerMode, Overlay, Privilege,
    RequestCounts, RunConfig, RunMount, View, attach, default_threads, enter_private_namespace,
};
use cbs_store::{
    Access, BlobStore, Directory, DirectoryRef, DirectoryStore, Entry, Metadata, Node, Store, StoreError, Timestamp,
    TreeDigest,
};

type Fallible<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;

/// Name and shell script of each piece of work; the script runs in the root of a tree.
const WORK: [(&str, &str); 7] = [
    ("find -type f", "find . -type f | wc -l > /dev/null"),
    ("lstat all", "find . -printf '%s %m' > /dev/null"),
    ("ls -lR", "ls -lR . > /dev/null"),
    ("tar | cat", "tar -cf - . | cat > /dev/null"),
    ("grep -r", "grep -r no-such-text-anywhere . > /dev/null || true"),
    (
        "chroot true x20",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do chroot . /usr/bin/true; done",
    ),
    (
        "chroot perl x20",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do chroot . /usr/bin/perl -e 1; done",
    ),
];

/// Ways to have a tree as a directory, the plain one first.
const WAYS: [&str; 6] = [
    "native",
    "overlay/native",
    "overlay/data-only",
    "overlay/plain",
    "overlay/image",
    "browse",
];

fn main() -> Fallible<()> {
    enter_private_namespace()?;
    let scratch = tempfile::TempDir::with_prefix_in("cbs-browse-bench-", "/var/tmp")?;
    let rootfs = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path).canonicalize()?,
        None => make_rootfs(&scratch.path().join("rootfs"))?,
    };
    let store = Store::open(&scratch.path().join("store"), Access::ReadWrite)?;
    let started = Instant::now();
    let loaded = load(&store, &rootfs)?;
    let tree = loaded.digest;
    store.flush()?;
    println!(
        "{} entries, {} MB, loaded in {:.1} s",
        loaded.totals.entries,
        loaded.totals.bytes >> 20,
        started.elapsed().as_secs_f64()
    );

    let images = ImageConfig {
        folder: scratch.path().join("images"),
        mounts: scratch.path().join("image-mounts"),
        budget: 4 << 30,
    };
    fs::create_dir(&images.mounts)?;
    make_image(scratch.path(), &store, tree, &images)?;

    let mut first = vec![vec![Vec::new(); WAYS.len()]; WORK.len()];
    let mut warm = first.clone();
    let mut requests = vec![RequestCounts::default(); WORK.len()];
    for round in 0..ROUNDS {
        for (work, (_, script)) in WORK.iter().enumerate() {
            // A new mount knows nothing, and the kernel nothing about it.
            let bench = Mounted::new(
                &scratch.path().join(format!("{round}-{work}")),
                &rootfs,
                &store,
                tree,
                &images,
            )?;
            for (times, root) in first[work].iter_mut().zip(&bench.roots) {
                times.push(run(script, root)?);
            }
            requests[work] = bench.data_only.counts();
            for (times, root) in warm[work].iter_mut().zip(&bench.roots) {
                times.push(run(script, root)?);
            }
        }
    }
    print_table("first", &mut first);
    print_table("warm", &mut warm);
    println!("\nrequests at the first time, overlay/data-only");
    for ((name, _), counts) in WORK.iter().zip(&requests) {
        println!(
            "{name:16} lookup {:6} (missing {:4}) readdir {:5} readlink {:4} getattr {:4} getxattr {:6} read {:5}",
            counts.lookup, counts.miss, counts.readdir, counts.readlink, counts.getattr, counts.getxattr, counts.read
        );
    }
    Ok(())
}

/// Milliseconds a script takes.
fn run(script: &str, root: &Path) -> Fallible<f64> {
    let started = Instant::now();
    let status = Command::new("sh")
        .arg("-ec")
        .arg(script)
        .env("LC_ALL", "C")
        .current_dir(root)
        .status()?;
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    if status.success() {
        Ok(milliseconds)
    } else {
        Err(format!("`{script}` failed in {}", root.display()).into())
    }
}

fn print_table(title: &str, times: &mut [Vec<Vec<f64>>]) {
    print!("\n{title:16} {:>10}", "native ms");
    for way in &WAYS[1..] {
        print!(" {way:>18}");
    }
    println!();
    for ((name, _), ways) in WORK.iter().zip(times) {
        let medians: Vec<f64> = ways.iter_mut().map(|times| median(times)).collect();
        print!("{name:16} {:>10.1}", medians[0]);
        for ratio in medians[1..].iter().map(|time| time / medians[0]) {
            print!(" {ratio:>18.2}");
        }
        println!();
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The tree in every way.
struct Mounted {
    roots: Vec<PathBuf>,
    overlays: Vec<PathBuf>,
    data_only: RunMount,
    _others: [RunMount; 2],
    _views: [View; 3],
    _browse: BrowseMount,
}

impl Mounted {
    fn new(dir: &Path, rootfs: &Path, store: &Store, tree: TreeDigest, images: &ImageConfig) -> Fallible<Self> {
        let folder = |name: &str| -> Fallible<PathBuf> {
            let path = dir.join(name);
            fs::create_dir_all(&path)?;
            Ok(path)
        };
        let data_only = run_mount(store, folder("data-only")?, LowerMode::DataOnly, None)?;
        let plain = run_mount(store, folder("plain")?, LowerMode::Plain, None)?;
        let with_image = run_mount(store, folder("with-image")?, LowerMode::DataOnly, Some(images.clone()))?;
        let views = [data_only.view(tree), plain.view(tree), with_image.view(tree)];
        let mut overlays = vec![native_overlay(rootfs, &folder("native")?)?];
        for (view, name) in views.iter().zip(["over-data-only", "over-plain", "over-image"]) {
            let (upper, work) = (folder(&format!("{name}-upper"))?, folder(&format!("{name}-work"))?);
            let merged = folder(name)?;
            let overlay = Overlay {
                lower: view,
                upper: &upper,
                work: &work,
            };
            attach(&overlay.mount()?, &merged)?;
            overlays.push(merged);
        }
        let browse = BrowseMount::mount(BrowseConfig {
            store: Arc::new(store.clone()),
            blobs: store.blobs_dir(),
            mountpoint: folder("browse")?,
            roots: Box::new(NoNames),
            threads: default_threads(),
        })?;
        let mut roots = vec![rootfs.to_owned()];
        roots.extend(overlays.clone());
        roots.push(browse.mountpoint().join(tree.to_string()));
        Ok(Self {
            roots,
            overlays,
            data_only,
            _others: [plain, with_image],
            _views: views,
            _browse: browse,
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for overlay in &self.overlays {
            // What stays is gone with the namespace.
            let _ = rustix::mount::unmount(overlay, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn run_mount(store: &Store, mountpoint: PathBuf, mode: LowerMode, images: Option<ImageConfig>) -> Fallible<RunMount> {
    Ok(RunMount::mount(RunConfig {
        store: Arc::new(store.clone()),
        blobs: store.blobs_dir(),
        mountpoint,
        mode,
        privilege: Privilege::Root,
        threads: default_threads(),
        images,
        entry_budget: DEFAULT_ENTRY_BUDGET,
        owners: cbs_store::KnownIds::all(),
    })?)
}

fn make_image(scratch: &Path, store: &Store, tree: TreeDigest, images: &ImageConfig) -> Fallible<()> {
    let mountpoint = scratch.join("image-maker");
    fs::create_dir(&mountpoint)?;
    let run = run_mount(store, mountpoint, LowerMode::DataOnly, Some(images.clone()))?;
    let started = Instant::now();
    run.want_image(tree);
    while run.view(tree).lower_dir() == run.view(tree).path() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let made = started.elapsed().as_secs_f64();
    let mut size = 0;
    for file in fs::read_dir(&images.folder)? {
        size += file?.metadata()?.blocks() * 512;
    }
    println!("image of {} MB made in {made:.2} s", size >> 20);
    Ok(())
}

struct NoNames;

impl BrowseRoots for NoNames {
    fn list(&self) -> Result<Vec<(Vec<u8>, TreeDigest)>, StoreError> {
        Ok(Vec::new())
    }
}

/// What an overlay snapshotter gives: an overlay over an unpacked directory.
fn native_overlay(rootfs: &Path, dir: &Path) -> Fallible<PathBuf> {
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let (lower, dir) = (rootfs.display(), dir.display());
    let options = format!("lowerdir={lower},upperdir={dir}/upper,workdir={dir}/work,volatile,index=off");
    let merged = format!("{dir}/merged");
    let status = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options, &merged])
        .status()?;
    if status.success() {
        Ok(merged.into())
    } else {
        Err("cannot mount an overlay".into())
    }
}

fn make_rootfs(at: &Path) -> Fallible<PathBuf> {
    let script = format!(
        "mkdir -p {0}/usr/bin {0}/dev; cd {0}; mknod -m 666 dev/null c 1 3
        for dir in /usr/lib/python3* /usr/share/doc /usr/share/perl /usr/share/zoneinfo; do
            test ! -d $dir || cp -a --parents $dir .
        done
        for program in true perl; do
            cp /usr/bin/$program usr/bin/
            ldd /usr/bin/$program | grep -o '/[^ ]*' | while read library; do
                mkdir -p .$(dirname $library); cp -L $library .$library
            done
        done",
        at.display()
    );
    let status = Command::new("sh").arg("-ec").arg(script).status()?;
    if status.success() {
        Ok(at.to_owned())
    } else {
        Err("cannot make a root file system".into())
    }
}

/// Stores a directory and all below it, hard links as files of their own.
fn load(store: &Store, path: &Path) -> Fallible<DirectoryRef> {
    let mut root = load_directory(store, path)?;
    root.root = Some(metadata(&fs::symlink_metadata(path)?));
    Ok(store.put_directory(root)?)
}

fn load_directory(store: &Store, path: &Path) -> Fallible<Directory> {
    let mut directory = Directory::default();
    for found in fs::read_dir(path)? {
        let found = found?;
        let (path, stat) = (found.path(), found.metadata()?);
        let kind = stat.file_type();
        let node = if kind.is_dir() {
            Node::Directory(store.put_directory(load_directory(store, &path)?)?)
        } else if kind.is_symlink() {
            Node::Symlink(fs::read_link(&path)?.into_os_string().into_vec())
        } else if kind.is_file() {
            let (blob, size) = store.put_reader(&mut fs::File::open(&path)?)?;
            Node::File { blob, size, link: None }
        } else if kind.is_char_device() {
            Node::CharDevice(rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()))
        } else {
            continue;
        };
        directory.entries.push(Entry {
            name: found.file_name().into_vec(),
            meta: metadata(&stat),
            node,
        });
    }
    directory.entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(directory)
}

fn metadata(stat: &fs::Metadata) -> Metadata {
    Metadata {
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: Timestamp {
            seconds: stat.mtime(),
            nanos: stat.mtime_nsec() as u32,
        },
        xattrs: Vec::new(),
    }
}

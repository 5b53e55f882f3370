//! A store with blob files, a loader for real directories, and mounts in a namespace of the test's own.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod sys;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use cbs_fuse::{DEFAULT_ENTRY_BUDGET, LowerMode, Overlay, Privilege, RunConfig, RunMount, View, attach};
use cbs_store::{
    Blob, BlobDigest, BlobStore, Directory, DirectoryRef, DirectoryStore, Entry, INLINE_LIMIT, LinkGroup, MemoryStore,
    Metadata, Node, StoreError, Timestamp, TreeDigest, blob_path,
};
use tempfile::TempDir;

/// Small blobs and directories in memory, large blobs as files.
#[derive(Debug)]
pub(crate) struct FileStore {
    memory: MemoryStore,
    blobs: PathBuf,
}

impl FileStore {
    pub(crate) fn new(blobs: &Path) -> Self {
        Self {
            memory: MemoryStore::default(),
            blobs: blobs.to_owned(),
        }
    }

    pub(crate) fn blob_file(&self, blob: &BlobDigest) -> PathBuf {
        self.blobs.join(blob_path(blob))
    }
}

impl BlobStore for FileStore {
    fn blob(&self, digest: &BlobDigest) -> Result<Option<Blob>, StoreError> {
        match File::open(self.blob_file(digest)) {
            Ok(file) => {
                let size = file.metadata().map_err(StoreError::io("stat", &self.blobs))?.len();
                Ok(Some(Blob::Large(file, size)))
            }
            Err(_) => self.memory.blob(digest),
        }
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobDigest, StoreError> {
        if bytes.len() as u64 <= INLINE_LIMIT {
            return self.memory.put_bytes(bytes);
        }
        let digest = BlobDigest::of(bytes);
        let path = self.blob_file(&digest);
        fs::create_dir_all(path.parent().expect("a folder")).map_err(StoreError::io("mkdir", &path))?;
        fs::write(&path, bytes).map_err(StoreError::io("write", &path))?;
        Ok(digest)
    }

    fn put_reader(&self, source: &mut dyn Read) -> Result<(BlobDigest, u64), StoreError> {
        let mut bytes = Vec::new();
        source
            .read_to_end(&mut bytes)
            .map_err(StoreError::io("read", &self.blobs))?;
        Ok((self.put_bytes(&bytes)?, bytes.len() as u64))
    }
}

impl DirectoryStore for FileStore {
    fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
        self.memory.directory(digest)
    }

    fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError> {
        self.memory.put_directory(directory)
    }
}

/// Stores a real directory and all below it.
pub(crate) fn load(store: &FileStore, path: &Path) -> TreeDigest {
    let mut links = HashMap::new();
    count_links(path, &mut links);
    links.retain(|_, count| *count > 1);
    let mut directory = load_directory(store, path, &links);
    directory.root = Some(metadata(path));
    store.put_directory(directory).expect("store").digest
}

type Links = HashMap<(u64, u64), u32>;

fn count_links(path: &Path, links: &mut Links) {
    for entry in fs::read_dir(path).expect("list") {
        let meta = entry.as_ref().expect("entry").metadata().expect("stat");
        if meta.is_dir() {
            count_links(&entry.expect("entry").path(), links);
        } else if meta.is_file() && meta.nlink() > 1 {
            *links.entry((meta.dev(), meta.ino())).or_default() += 1;
        }
    }
}

fn load_directory(store: &FileStore, path: &Path, links: &Links) -> Directory {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).expect("list") {
        let entry = entry.expect("entry");
        let stat = entry.metadata().expect("stat");
        let kind = stat.file_type();
        let path = entry.path();
        let node = if kind.is_dir() {
            Node::Directory(store.put_directory(load_directory(store, &path, links)).expect("store"))
        } else if kind.is_symlink() {
            Node::Symlink(fs::read_link(&path).expect("read link").into_os_string().into_vec())
        } else if kind.is_file() {
            let blob = store.put_bytes(&fs::read(&path).expect("read")).expect("store");
            let link = links.get(&(stat.dev(), stat.ino()));
            Node::File {
                blob,
                size: stat.len(),
                link: link.map(|&count| LinkGroup { id: stat.ino(), count }),
            }
        } else if kind.is_char_device() {
            Node::CharDevice(rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()))
        } else if kind.is_block_device() {
            Node::BlockDevice(rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()))
        } else if kind.is_fifo() {
            Node::Fifo
        } else {
            continue;
        };
        entries.push(Entry {
            name: entry.file_name().into_vec(),
            meta: metadata(&path),
            node,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Directory {
        entries,
        ..Directory::default()
    }
}

fn metadata(path: &Path) -> Metadata {
    let stat = fs::symlink_metadata(path).expect("stat");
    Metadata {
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: Timestamp {
            seconds: stat.mtime(),
            nanos: stat.mtime_nsec() as u32,
        },
        xattrs: xattrs(path),
    }
}

/// All extended attributes of a file, sorted, symlinks not followed.
pub(crate) fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut xattrs: Vec<_> = names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| (name.to_vec(), xattr(path, name).expect("a listed attribute")))
        .collect();
    xattrs.sort();
    xattrs
}

/// One extended attribute, symlinks not followed.
pub(crate) fn xattr(path: &Path, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// A test's folder with a store in it, on a disk file system, and a mount namespace of the test's own.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: Arc<FileStore>,
    dir: PathBuf,
    /// Removes the folder, unless somebody else owns it.
    remove: Option<TempDir>,
}

impl World {
    /// `None`, said out loud, where the test cannot run.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: needs root and /dev/fuse");
            return None;
        }
        sys::private_namespace_of_this_thread();
        let dir = TempDir::with_prefix("cbs-fuse-").expect("make a folder");
        let mut world = Self::below(dir.path());
        world.remove = Some(dir);
        Some(world)
    }

    /// A world below a folder of somebody else's, in the mount namespace the thread already has.
    pub(crate) fn below(dir: &Path) -> Self {
        let blobs = dir.join("blobs");
        fs::create_dir_all(&blobs).expect("mkdir");
        Self {
            store: Arc::new(FileStore::new(&blobs)),
            dir: dir.to_owned(),
            remove: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("mkdir");
        path
    }

    pub(crate) fn config(&self, mode: LowerMode) -> RunConfig {
        RunConfig {
            store: Arc::clone(&self.store) as Arc<dyn cbs_store::ContentStore>,
            blobs: self.path("blobs"),
            mountpoint: self.folder(&format!("mount-{mode:?}")),
            mode,
            privilege: Privilege::detect(),
            threads: NonZeroUsize::new(2).expect("not zero"),
            images: None,
            entry_budget: DEFAULT_ENTRY_BUDGET,
            owners: cbs_store::KnownIds::all(),
        }
    }

    pub(crate) fn run(&self, mode: LowerMode) -> RunMount {
        RunMount::mount(self.config(mode)).expect("mount")
    }

    /// An overlay over a view, attached.
    pub(crate) fn overlay(&self, view: &View, name: &str) -> Overlaid {
        let (upper, work) = (
            self.folder(&format!("{name}-upper")),
            self.folder(&format!("{name}-work")),
        );
        let merged = self.folder(&format!("{name}-merged"));
        let mount = Overlay {
            lower: view,
            upper: &upper,
            work: &work,
        }
        .mount()
        .expect("overlay");
        attach(&mount, &merged).expect("attach");
        Overlaid { merged, upper }
    }

    /// Stores one directory level.
    pub(crate) fn put(&self, entries: Vec<Entry>) -> DirectoryRef {
        self.store.put_directory(sorted(entries)).expect("store")
    }

    /// Stores the root of a tree.
    pub(crate) fn put_root(&self, entries: Vec<Entry>) -> TreeDigest {
        let mut root = sorted(entries);
        root.root = Some(Metadata::new(0o755));
        self.store.put_directory(root).expect("store").digest
    }

    pub(crate) fn file(&self, name: impl AsRef<[u8]>, bytes: &[u8]) -> Entry {
        let blob = self.store.put_bytes(bytes).expect("store");
        entry(
            name,
            0o644,
            Node::File {
                blob,
                size: bytes.len() as u64,
                link: None,
            },
        )
    }
}

/// A mounted overlay, unmounted on drop.
#[derive(Debug)]
pub(crate) struct Overlaid {
    pub(crate) merged: PathBuf,
    pub(crate) upper: PathBuf,
}

impl Drop for Overlaid {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.merged, rustix::mount::UnmountFlags::DETACH).expect("unmount");
    }
}

fn sorted(mut entries: Vec<Entry>) -> Directory {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Directory {
        entries,
        ..Directory::default()
    }
}

pub(crate) fn entry(name: impl AsRef<[u8]>, mode: u32, node: Node) -> Entry {
    Entry {
        name: name.as_ref().to_vec(),
        meta: Metadata::new(mode),
        node,
    }
}

/// Bytes that differ from page to page.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Runs a shell script; panics with what it said when it fails.
pub(crate) fn shell(script: &str) -> String {
    let output = shell_output(script);
    assert!(
        output.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn shell_output(script: &str) -> Output {
    Command::new("sh").arg("-ec").arg(script).output().expect("run sh")
}

/// All paths below a directory, relative, sorted.
pub(crate) fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(&path).expect("list") {
            let entry = entry.expect("entry");
            if entry.file_type().expect("type").is_dir() {
                todo.push(entry.path());
            }
            found.push(entry.path().strip_prefix(root).expect("below").to_owned());
        }
    }
    found.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    found
}

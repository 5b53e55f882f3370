//! The store on disk.
//!
//! ```text
//! cbs.db               the index: schema.rs says what is in it
//! blobs/ab/<hex>       one file per blob above the inline limit, mode 0444; hex = BLAKE3-256
//! packs/<n>            small blobs back to back: packs.rs
//! layers/<hex>         OCI blobs by SHA-256
//! caches/<hash>/<n>    cache mounts: caches.rs
//! work/<id>/           scratch of living processes: scratch.rs, lease.rs
//! gc.lock, keys.lock   byte-range locks: locks.rs
//! reserve              space for gc on a full disk: reserve.rs
//! ```
//! Bytes first, rows after: a row that is there has its bytes, whoever is killed whenever. Puts are collected in
//! memory ([`pending`]) and committed in batches. Nothing is synced on the way: rows whose blobs may not have reached
//! the disk are known by their batch, and after a power loss they are hashed again before anyone sees them ([`recover`]).

mod adopt;
mod background;
mod blobs;
mod caches;
mod check;
mod codec;
mod directories;
mod facts;
mod gc;
mod index;
mod known;
mod layers;
mod lease;
mod locks;
mod moved;
mod packs;
mod pending;
mod realisations;
mod records;
mod recover;
mod remove;
mod reserve;
mod roots;
mod schema;
mod scratch;
mod sys;
mod usage;
mod verify;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};

pub use blobs::BlobWriter;
pub use caches::{CacheMount, CacheRemoval, Sharing};
pub use codec::RecordError;
pub use gc::{DryRun, GcCandidate, GcFilter, GcPolicy, GcReport, Kept, KeptBecause, Removed, Space, StoreItem};
pub use lease::Lease;
pub use locks::KeyLock;
pub use records::{GcRoot, Layer, OciBlob, Realisation, Snapshot};
pub use usage::{Amount, CacheUse, DiskUse, ItemUse, Measured, Usage};
pub use verify::{Problem, Repair, VerifyReport};

use crate::{BlobDigest, StoreError, blob_path};
use background::{Background, Reaper, spawn_flusher};
use directories::DirectoryCache;
use index::{Index, wall_clock};
use known::Known;
use locks::{Guard, SweepLock};
use packs::Packs;
use pending::Pending;
use scratch::Scratch;

/// A use younger than this (in milliseconds) is not noted again.
const TOUCH_AFTER: i64 = 60_000;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Creates it when absent.
    ReadWrite,
    /// Fails when absent.
    ReadOnly,
}

/// The store. Cloning is cheap; all clones share caches and pending rows. Dropping the last clone (leases hold one)
/// flushes and waits for scratch to be removed.
///
/// Whoever builds something of several puts takes a [`Lease`] first: without one, gc in another process may take what was
/// put before it is referred to by a root or realisation.
#[derive(Clone, Debug)]
pub struct Store(Arc<Handle>);

/// What ends the threads.
#[derive(Debug)]
struct Handle {
    inner: Arc<Inner>,
    reaper: Reaper,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    layers: PathBuf,
    caches: PathBuf,
    work: PathBuf,
    blobs_fd: OwnedFd,
    layers_fd: OwnedFd,
    work_fd: OwnedFd,
    device: u64,
    access: Access,
    boot: String,
    index: Index,
    packs: Packs,
    cache: DirectoryCache,
    sweep_lock: SweepLock,
    pending: RwLock<Pending>,
    /// Held by whoever flushes.
    flushing: Mutex<()>,
    background: Background,
    scratch: Mutex<Option<Scratch>>,
    known: Known,
    /// Batches of another boot that were not synced; only ever filled in a store opened for reading.
    suspects: RwLock<HashSet<i64>>,
}

impl Store {
    /// Opens a store. The first one to open it for writing after a power loss checks what may not have reached the disk.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`] for a store of a newer program; [`StoreError::Io`] when a folder cannot be made or is
    /// not there; [`StoreError::Index`] when `cbs.db` is no database or damaged.
    pub fn open(root: &Path, access: Access) -> Result<Self, StoreError> {
        if access == Access::ReadWrite {
            make_private(root)?;
            for folder in ["blobs", "packs", "layers", "caches", "work"] {
                make_private(&root.join(folder))?;
            }
        }
        let root = root.canonicalize().map_err(StoreError::io("open store", root))?;
        let open = |folder: &str| {
            let path = root.join(folder);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Mode::empty()).map_err(|err| StoreError::io("open store", &path)(err.into()))
        };
        let sweep_lock = SweepLock::new(&root);
        if access == Access::ReadWrite {
            sweep_lock.check()?;
        }
        let blobs_fd = open("blobs")?;
        let stat = rustix::fs::fstat(&blobs_fd).map_err(|err| StoreError::io("open store", &root)(err.into()))?;
        let inner = Arc::new(Inner {
            index: match Index::open(&root, access, &sweep_lock) {
                // Not even the index opens on this disk; gc, which could help, does not come so far without this.
                Err(StoreError::Full { .. }) if access == Access::ReadWrite && reserve::take(&root) => {
                    Index::open(&root, access, &sweep_lock)?
                }
                opened => opened?,
            },
            packs: Packs::new(root.join("packs"), open("packs")?),
            layers: root.join("layers"),
            caches: root.join("caches"),
            work: root.join("work"),
            layers_fd: open("layers")?,
            work_fd: open("work")?,
            device: stat.st_dev,
            boot: boot_id()?,
            blobs_fd,
            access,
            cache: DirectoryCache::new(),
            sweep_lock,
            pending: RwLock::default(),
            flushing: Mutex::default(),
            background: Background::default(),
            scratch: Mutex::default(),
            known: Known::default(),
            suspects: RwLock::default(),
            root,
        });
        inner.recover()?;
        let flusher = match access {
            Access::ReadWrite => {
                inner.make_reserve();
                let thread = spawn_flusher(inner.clone()).map_err(StoreError::io("start a thread for", &inner.root))?;
                Some(thread)
            }
            Access::ReadOnly => None,
        };
        Ok(Self(Arc::new(Handle {
            inner,
            reaper: Reaper::default(),
            flusher: Mutex::new(flusher),
        })))
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.0.inner.root
    }

    /// The folder of large blob files: the data-only lower layer of overlays.
    pub fn blobs_dir(&self) -> PathBuf {
        self.0.inner.root.join("blobs")
    }

    /// The folder in which each lease has its scratch.
    pub fn work_dir(&self) -> PathBuf {
        self.0.inner.root.join("work")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let inner = &self.inner;
        inner.background.stop();
        if let Some(thread) = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic there has been reported by the panic hook; the flush below does the rest.
            let _ = thread.join();
        }
        // Nobody is left to tell. What matters was committed with a realisation or root before.
        let _ = inner.flush();
        self.reaper.finish();
        inner.close_scratch();
        inner.index.close();
    }
}

impl Inner {
    fn check_writable(&self) -> Result<(), StoreError> {
        if self.is_writable() {
            Ok(())
        } else {
            Err(StoreError::ReadOnly {
                path: self.root.clone(),
            })
        }
    }

    fn is_writable(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// A guard when the store is open for writing; a reader keeps nothing from gc.
    fn read_guard(&self) -> Result<Option<Guard>, StoreError> {
        match self.access {
            Access::ReadWrite => self.sweep_lock.guard().map(Some),
            Access::ReadOnly => Ok(None),
        }
    }

    /// Whether a use must be noted: it does not show to gc that a living lease of ours counts on the row, or it is so old
    /// that eviction would take the row for unused.
    fn is_stale(&self, used: i64) -> bool {
        used <= self.known.floor() || used.saturating_add(TOUCH_AFTER) < wall_clock()
    }

    fn blob_file(&self, digest: &BlobDigest) -> PathBuf {
        self.root.join("blobs").join(blob_path(digest))
    }
}

fn make_private(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("create store", path))
}

/// Names this boot of the kernel.
fn boot_id() -> Result<String, StoreError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(StoreError::io("read", path))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests;

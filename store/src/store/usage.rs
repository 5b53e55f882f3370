//! What takes how much space.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::gc::catalog::{Catalog, Item, Marks};
use super::gc::plan::{realisation_items, snapshot_items};
use super::realisations::decode;
use super::{Inner, Store};
use crate::{CacheKey, StoreError};

/// A number of things and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Bytes together.
    pub bytes: u64,
}

/// What the store's files take, to the byte. All but `small` and `directories` are files of their own: small blobs are in
/// packs, directories in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Large blobs.
    pub large: Amount,
    /// Small blobs.
    pub small: Amount,
    /// Packs: small blobs and dead space.
    pub packs: Amount,
    /// OCI blobs.
    pub layers: Amount,
    /// Cache mounts.
    pub caches: Amount,
    /// Directories.
    pub directories: Amount,
    /// The index and its log.
    pub database: u64,
    /// Scratch of running builds.
    pub work: u64,
    /// What gc needs on a full disk.
    pub reserve: u64,
}

impl DiskUse {
    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        let content = self.large.bytes + self.packs.bytes + self.layers.bytes + self.caches.bytes;
        content + self.database + self.work + self.reserve
    }
}

/// What a root or realisation refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemUse {
    /// Name of the root, or of the run.
    pub name: String,
    /// The key, for a realisation.
    pub key: Option<CacheKey>,
    /// Bytes of blobs and directories, each counted once.
    pub bytes: u64,
    /// Those of them that no other item of the same list refers to; another name of the very same thing is no other.
    pub exclusive: u64,
    /// Last use in milliseconds since 1970; for a root, when it was made.
    pub used: i64,
    /// Whether something of it is not here.
    pub incomplete: bool,
    /// Whether roots keep all of it that is here.
    pub rooted: bool,
}

/// A folder of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// The id its users know.
    pub id: String,
    /// Which of its folders.
    pub slot: u32,
    /// Bytes of its files.
    pub bytes: u64,
    /// Last use in milliseconds since 1970.
    pub used: i64,
}

/// The store's folder as `du` measures it: every file and folder below it, and itself, each inode once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes by length, folders included: what `du -sb` says.
    pub bytes: u64,
    /// Bytes of blocks: what `du -sB1` says.
    pub allocated: u64,
}

/// What takes how much space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By kind of file.
    pub disk: DiskUse,
    /// What the files say themselves.
    pub measured: Measured,
    /// Roots by name.
    pub roots: Vec<ItemUse>,
    /// Realisations whose content is kept, newest use first.
    pub realisations: Vec<ItemUse>,
    /// Cache mounts by id.
    pub caches: Vec<CacheUse>,
    /// Blobs and directories that no root and no realisation refers to.
    pub unreferenced: Amount,
}

impl Store {
    /// Measures the store by kind of file: quick.
    ///
    /// # Errors
    /// [`StoreError`] when the index or a folder cannot be read.
    pub fn disk_use(&self) -> Result<DiskUse, StoreError> {
        self.0.inner.flush()?;
        self.0.inner.disk_use()
    }

    /// Measures everything.
    ///
    /// # Errors
    /// [`StoreError`] when the index or a folder cannot be read.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let inner = &self.0.inner;
        inner.flush()?;
        let catalog = inner.index.read("read the catalog", Catalog::load)?;
        let roots: Vec<Counted> = inner
            .roots()?
            .into_iter()
            .map(|root| {
                let items: Vec<Item> = root
                    .snapshots
                    .iter()
                    .flat_map(|snapshot| snapshot_items(&catalog, snapshot))
                    .collect();
                let wanted = root
                    .snapshots
                    .iter()
                    .map(|snapshot| 1 + snapshot.layers.len())
                    .sum::<usize>();
                Counted {
                    incomplete: items.len() < wanted,
                    items,
                    name: root.name,
                    key: None,
                    used: root.created.saturating_mul(1_000),
                }
            })
            .collect();
        let realisations = inner.measured_realisations(&catalog)?;
        let mut rooted = Marks::new(&catalog);
        for item in roots.iter().flat_map(|counted| &counted.items) {
            rooted.add(&catalog, *item);
        }
        let mut all = Marks::new(&catalog);
        for item in roots.iter().chain(&realisations).flat_map(|counted| &counted.items) {
            all.add(&catalog, *item);
        }
        let mut unreferenced = Amount::default();
        let blobs = (0..catalog.blobs.len() as u32).map(Item::Blob);
        let directories = (0..catalog.directories.len() as u32).map(Item::Directory);
        for item in directories.chain(blobs).filter(|item| !all.has(*item)) {
            unreferenced.count += 1;
            unreferenced.bytes += catalog.size(item);
        }
        let caches = inner.mounts()?.into_iter().map(|mount| CacheUse {
            id: mount.id,
            slot: mount.slot,
            bytes: mount.bytes,
            used: mount.used,
        });
        Ok(Usage {
            disk: inner.disk_use()?,
            measured: measure_folder(&inner.root)?,
            roots: measure(&catalog, roots, &rooted),
            realisations: measure(&catalog, realisations, &rooted),
            caches: caches.collect(),
            unreferenced,
        })
    }
}

struct Counted {
    name: String,
    key: Option<CacheKey>,
    items: Vec<Item>,
    used: i64,
    incomplete: bool,
}

/// Sums up each item, and what is its alone.
fn measure(catalog: &Catalog, items: Vec<Counted>, rooted: &Marks) -> Vec<ItemUse> {
    /// More than one refers to it.
    const SHARED: u32 = u32::MAX;
    let index = |item: Item| match item {
        Item::Blob(blob) => blob as usize,
        Item::Directory(directory) => catalog.blobs.len() + directory as usize,
    };
    let nodes = catalog.blobs.len() + catalog.directories.len();
    // Who refers to a node, and who walked over it last: numbers from one.
    let (mut owner, mut walker) = (vec![0_u32; nodes], vec![0_u32; nodes]);
    let mut uses = Vec::with_capacity(items.len());
    // Names of one and the same thing own it together.
    let mut owners: HashMap<Vec<Item>, u32> = HashMap::new();
    let mut owned_by = Vec::with_capacity(items.len());
    for (number, counted) in (1..SHARED).zip(items) {
        let (mut bytes, mut incomplete) = (0, counted.incomplete);
        let is_rooted = counted.items.iter().all(|item| rooted.has(*item));
        let me = *owners.entry(counted.items.clone()).or_insert(number);
        owned_by.push(me);
        let mut waiting = counted.items;
        while let Some(item) = waiting.pop() {
            let node = index(item);
            if std::mem::replace(&mut walker[node], number) == number {
                continue;
            }
            owner[node] = if owner[node] == 0 || owner[node] == me {
                me
            } else {
                SHARED
            };
            bytes += catalog.size(item);
            if let Item::Directory(directory) = item {
                incomplete |= catalog.directories[directory as usize].broken;
                waiting.extend(catalog.below(directory));
            }
        }
        uses.push(ItemUse {
            name: counted.name,
            key: counted.key,
            bytes,
            exclusive: 0,
            used: counted.used,
            incomplete,
            rooted: is_rooted,
        });
    }
    let blobs = (0..catalog.blobs.len() as u32).map(Item::Blob);
    let directories = (0..catalog.directories.len() as u32).map(Item::Directory);
    let mut exclusive = vec![0; uses.len()];
    for item in blobs.chain(directories) {
        let owner = owner[index(item)];
        if owner != 0 && owner != SHARED {
            exclusive[owner as usize - 1] += catalog.size(item);
        }
    }
    for (each, owner) in uses.iter_mut().zip(owned_by) {
        each.exclusive = exclusive[owner as usize - 1];
    }
    uses
}

impl Inner {
    fn measured_realisations(&self, catalog: &Catalog) -> Result<Vec<Counted>, StoreError> {
        let rows: Vec<(CacheKey, i64, Vec<u8>)> = self.index.read("list realisations", |connection| {
            connection
                .prepare("SELECT key, used, data FROM realisations WHERE kept = 1 ORDER BY used DESC")?
                .query_map([], |row| {
                    Ok((CacheKey::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?))
                })?
                .collect()
        })?;
        rows.into_iter()
            .map(|(key, used, data)| {
                let realisation = decode(&key, &data)?;
                let items = realisation_items(catalog, &realisation);
                let outputs = realisation.outputs.iter().flatten();
                let wanted = outputs.map(|output| 1 + output.layers.len()).sum::<usize>()
                    + usize::from(realisation.log.is_some());
                Ok(Counted {
                    incomplete: items.len() < wanted,
                    name: realisation.name,
                    key: Some(key),
                    items,
                    used,
                })
            })
            .collect()
    }

    pub(super) fn disk_use(&self) -> Result<DiskUse, StoreError> {
        let sum = |query: &'static str| {
            self.index.read("measure the store", |connection| {
                connection.prepare_cached(query)?.query_row([], |row| {
                    Ok(Amount {
                        count: row.get::<_, i64>(0)?.cast_unsigned(),
                        bytes: row.get::<_, i64>(1)?.cast_unsigned(),
                    })
                })
            })
        };
        let mut packs = Amount::default();
        for pack in self.packs.numbers()? {
            packs.count += 1;
            packs.bytes += file_bytes(&self.packs.file_path(pack))?;
        }
        let mut caches = Amount::default();
        for mount in self.mounts()? {
            caches.count += 1;
            caches.bytes += mount.bytes;
        }
        let mut database = 0;
        for suffix in ["", "-wal", "-shm"] {
            let mut name = self.index.path().as_os_str().to_owned();
            name.push(suffix);
            database += file_bytes(Path::new(&name))?;
        }
        Ok(DiskUse {
            large: sum("SELECT count(*), ifnull(sum(size), 0) FROM blobs WHERE pack IS NULL")?,
            small: sum("SELECT count(*), ifnull(sum(size), 0) FROM blobs WHERE pack IS NOT NULL")?,
            directories: sum("SELECT count(*), ifnull(sum(length(data)), 0) FROM directories")?,
            layers: sum("SELECT count(*), ifnull(sum(size), 0) FROM oci")?,
            packs,
            caches,
            database,
            work: tree_bytes(&self.work)?,
            reserve: file_bytes(&self.reserve_path())?,
        })
    }

    /// What the file system has free for this process.
    pub(super) fn free_bytes(&self) -> Result<u64, StoreError> {
        let stat = rustix::fs::fstatvfs(&self.blobs_fd)
            .map_err(|err| StoreError::io("measure the file system of", &self.root)(err.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Measures a folder as `du` does.
fn measure_folder(root: &Path) -> Result<Measured, StoreError> {
    let mut measured = Measured::default();
    each_inode(root, |meta| {
        measured.bytes += meta.len();
        measured.allocated += meta.blocks() * 512;
    })?;
    Ok(measured)
}

/// Sum of the sizes of the files below a folder.
pub(super) fn tree_bytes(root: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    each_inode(root, |meta| bytes += if meta.is_dir() { 0 } else { meta.len() })?;
    Ok(bytes)
}

/// Shows a folder and what is below it, each inode once. What goes away meanwhile is not there.
fn each_inode(root: &Path, mut see: impl FnMut(&Metadata)) -> Result<(), StoreError> {
    let gone = |err: &std::io::Error| err.kind() == std::io::ErrorKind::NotFound;
    let mut linked: HashSet<u64> = HashSet::new();
    match root.symlink_metadata() {
        Ok(meta) => see(&meta),
        Err(err) if gone(&err) => return Ok(()),
        Err(err) => return Err(StoreError::io("measure", root)(err)),
    }
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(err) if gone(&err) => continue,
            Err(err) => return Err(StoreError::io("list", &folder)(err)),
        };
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &folder))?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(err) if gone(&err) => continue,
                Err(err) => return Err(StoreError::io("measure", &entry.path())(err)),
            };
            if meta.is_dir() {
                waiting.push(entry.path());
            } else if meta.nlink() > 1 && !linked.insert(meta.ino()) {
                continue;
            }
            see(&meta);
        }
    }
    Ok(())
}

/// The size of a file; zero when it is not there.
fn file_bytes(path: &Path) -> Result<u64, StoreError> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(meta.len()),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(err) => Err(StoreError::io("measure", path)(err)),
    }
}

//! What the solver asks of a store: remembered results, locks on keys and small facts, beside the content itself.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use cbs_store::{
    Blob, BlobDigest, BlobStore, CacheKey, ContentStore, Directory, DirectoryRef, DirectoryStore, Lease, MemoryStore,
    Node, Realisation, Snapshot, Store, StoreError, TreeDigest,
};

/// The store as the solver sees it. Blocking: called from blocking threads only.
///
/// [`StoreIndex`] is the real one, [`MemoryIndex`] the one for tests.
pub trait Index: ContentStore + 'static {
    /// What a key gave before; `None` when nothing is known.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    fn realisation(&self, key: &CacheKey) -> Result<Option<Realisation>, StoreError>;

    /// Remembers what a key gave, in place of anything older.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    fn put_realisation(&self, key: &CacheKey, realisation: &Realisation) -> Result<(), StoreError>;

    /// Makes `alias` find what `key` finds.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    fn alias(&self, alias: &CacheKey, key: &CacheKey) -> Result<(), StoreError>;

    /// Whether all directories and files of a tree are here.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    fn is_complete(&self, tree: &TreeDigest) -> Result<bool, StoreError>;

    /// Takes the lock of a key; `None` while another solve or process has it. Dropping the guard releases it, and so
    /// does the death of the process.
    ///
    /// # Errors
    /// [`StoreError`] when the lock cannot be asked for.
    fn try_lock(&self, key: &CacheKey) -> Result<Option<KeyGuard>, StoreError>;

    /// Keeps a snapshot from gc until the solve's caller is done with it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be recorded.
    fn keep(&self, snapshot: &Snapshot) -> Result<(), StoreError>;

    /// A small fact; `None` when nobody wrote it.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be asked.
    fn fact(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a small fact.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    fn put_fact(&self, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError>;
}

/// A held key lock; dropping it releases it.
pub struct KeyGuard(#[expect(dead_code, reason = "held for its Drop")] Box<dyn Send>);

impl KeyGuard {
    /// Wraps what releases the lock when dropped.
    pub fn new(guard: impl Send + 'static) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for KeyGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyGuard")
    }
}

/// The store on disk, with the lease that keeps a solve's results.
#[derive(Clone, Debug)]
pub struct StoreIndex {
    /// The store.
    pub store: Store,
    /// Keeps what the solve finds and makes.
    pub lease: Arc<Lease>,
}

impl Index for StoreIndex {
    fn realisation(&self, key: &CacheKey) -> Result<Option<Realisation>, StoreError> {
        self.store.realisation(key)
    }

    fn put_realisation(&self, key: &CacheKey, realisation: &Realisation) -> Result<(), StoreError> {
        self.store.put_realisation(key, realisation)
    }

    fn alias(&self, alias: &CacheKey, key: &CacheKey) -> Result<(), StoreError> {
        self.store.alias_realisation(alias, key)
    }

    fn is_complete(&self, tree: &TreeDigest) -> Result<bool, StoreError> {
        self.store.is_complete(tree)
    }

    fn try_lock(&self, key: &CacheKey) -> Result<Option<KeyGuard>, StoreError> {
        Ok(self.store.try_lock_key(key)?.map(KeyGuard::new))
    }

    fn keep(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.lease.keep(snapshot)
    }

    fn fact(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.store.fact(namespace, key)?.map(|(value, _)| value))
    }

    fn put_fact(&self, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.store.put_fact(namespace, key, value)
    }
}

macro_rules! delegate_content {
    ($name:ty, $field:ident) => {
        impl BlobStore for $name {
            fn blob(&self, digest: &BlobDigest) -> Result<Option<Blob>, StoreError> {
                self.$field.blob(digest)
            }

            fn put_bytes(&self, bytes: &[u8]) -> Result<BlobDigest, StoreError> {
                self.$field.put_bytes(bytes)
            }

            fn put_reader(&self, source: &mut dyn Read) -> Result<(BlobDigest, u64), StoreError> {
                self.$field.put_reader(source)
            }
        }

        impl DirectoryStore for $name {
            fn directory(&self, digest: &TreeDigest) -> Result<Option<Arc<Directory>>, StoreError> {
                self.$field.directory(digest)
            }

            fn put_directory(&self, directory: Directory) -> Result<DirectoryRef, StoreError> {
                self.$field.put_directory(directory)
            }
        }
    };
}

delegate_content!(StoreIndex, store);
delegate_content!(MemoryIndex, content);

/// Everything in memory; clones share it, as processes share a store.
#[derive(Clone, Debug, Default)]
pub struct MemoryIndex {
    content: Arc<MemoryStore>,
    rows: Arc<Mutex<Rows>>,
}

#[derive(Debug, Default)]
struct Rows {
    realisations: HashMap<CacheKey, Arc<Realisation>>,
    facts: HashMap<(String, String), Vec<u8>>,
    locked: HashSet<CacheKey>,
    /// Trees said to be gone, as after a gc.
    gone: HashSet<TreeDigest>,
}

/// Releases a lock of a [`MemoryIndex`].
struct MemoryLock {
    rows: Arc<Mutex<Rows>>,
    key: CacheKey,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.rows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .locked
            .remove(&self.key);
    }
}

impl MemoryIndex {
    /// Says that the bytes of a tree are gone, as after a gc; directories stay readable. Putting it again
    /// ([`MemoryIndex::restore`]) undoes it.
    pub fn forget_bytes(&self, tree: TreeDigest) {
        self.rows().gone.insert(tree);
    }

    /// Says that the bytes of a tree are back.
    pub fn restore(&self, tree: &TreeDigest) {
        self.rows().gone.remove(tree);
    }

    /// How many keys are known.
    pub fn realisations(&self) -> usize {
        self.rows().realisations.len()
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index for MemoryIndex {
    fn realisation(&self, key: &CacheKey) -> Result<Option<Realisation>, StoreError> {
        let found = self.rows().realisations.get(key).cloned();
        Ok(found.map(|realisation| Realisation::clone(&realisation)))
    }

    fn put_realisation(&self, key: &CacheKey, realisation: &Realisation) -> Result<(), StoreError> {
        self.rows().realisations.insert(*key, Arc::new(realisation.clone()));
        Ok(())
    }

    fn alias(&self, alias: &CacheKey, key: &CacheKey) -> Result<(), StoreError> {
        let mut rows = self.rows();
        if let Some(found) = rows.realisations.get(key).cloned() {
            rows.realisations.insert(*alias, found);
        }
        Ok(())
    }

    fn is_complete(&self, tree: &TreeDigest) -> Result<bool, StoreError> {
        if self.rows().gone.contains(tree) {
            return Ok(false);
        }
        let mut pending = vec![*tree];
        let mut seen = HashSet::from([*tree]);
        while let Some(tree) = pending.pop() {
            let Some(directory) = self.directory(&tree)? else {
                return Ok(false);
            };
            for entry in &directory.entries {
                match &entry.node {
                    Node::Directory(below) if seen.insert(below.digest) => pending.push(below.digest),
                    Node::File { blob, .. } if self.blob(blob)?.is_none() => return Ok(false),
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    fn try_lock(&self, key: &CacheKey) -> Result<Option<KeyGuard>, StoreError> {
        let taken = self.rows().locked.insert(*key);
        Ok(taken.then(|| {
            KeyGuard::new(MemoryLock {
                rows: self.rows.clone(),
                key: *key,
            })
        }))
    }

    fn keep(&self, _snapshot: &Snapshot) -> Result<(), StoreError> {
        Ok(())
    }

    fn fact(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows().facts.get(&(namespace.to_owned(), key.to_owned())).cloned())
    }

    fn put_fact(&self, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.rows()
            .facts
            .insert((namespace.to_owned(), key.to_owned()), value.to_vec());
        Ok(())
    }
}

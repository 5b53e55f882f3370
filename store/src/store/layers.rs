//! OCI blobs (`layers/`) and what they are compressed forms of.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::moved::Moved;
use super::{Inner, Layer, OciBlob, Store};
use crate::{Sha256Digest, StoreError, TreeDigest};

/// What the index says about an OCI blob.
#[derive(Clone, Copy, Debug)]
struct OciRow {
    used: i64,
    size: u64,
    made: i64,
}

fn oci_row(connection: &Connection, digest: &Sha256Digest) -> rusqlite::Result<Option<OciRow>> {
    connection
        .prepare_cached("SELECT used, size, made FROM oci WHERE digest = ?1")?
        .query_row([digest.as_bytes()], |row| {
            Ok(OciRow {
                used: row.get(0)?,
                size: row.get::<_, i64>(1)?.cast_unsigned(),
                made: row.get(2)?,
            })
        })
        .optional()
}

impl Store {
    /// Remembered compressed form of a layer; `variant` names compression, level and timestamp rewriting. The bytes may be
    /// gone: [`Store::open_oci_blob`] says.
    ///
    /// # Errors
    /// [`StoreError::Index`] when the index cannot be asked.
    pub fn layer_blob(&self, layer: &Layer, variant: &str) -> Result<Option<OciBlob>, StoreError> {
        self.0.inner.index.read("look up layer", |connection| {
            connection
                .prepare_cached(
                    "SELECT digest, size, media_type, tar_id FROM layers
                     WHERE diff = ?1 AND diff_id = ?2 AND variant = ?3",
                )?
                .query_row(params![layer.diff.as_bytes(), diff_id_column(layer), variant], |row| {
                    Ok(OciBlob {
                        digest: Sha256Digest::from_bytes(row.get(0)?),
                        size: row.get::<_, i64>(1)?.cast_unsigned(),
                        media_type: row.get(2)?,
                        diff_id: row.get::<_, Option<[u8; 32]>>(3)?.map(Sha256Digest::from_bytes),
                    })
                })
                .optional()
        })
    }

    /// Remembers a compressed form of a layer, and flushes what it refers to in the same transaction.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails.
    pub fn put_layer_blob(&self, layer: &Layer, variant: &str, blob: &OciBlob) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        inner.commit("record layer", |transaction, tick| {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO layers VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                .execute(params![
                    layer.diff.as_bytes(),
                    diff_id_column(layer),
                    variant,
                    blob.digest.as_bytes(),
                    blob.size.cast_signed(),
                    blob.media_type,
                    blob.diff_id.as_ref().map(Sha256Digest::as_bytes),
                    tick
                ])
                .map(drop)
        })
    }

    /// The layer that a pulled diff id unpacked to, if it did so before and is still here.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot be asked.
    pub fn layer_by_diff_id(&self, diff_id: &Sha256Digest) -> Result<Option<Layer>, StoreError> {
        let inner = &self.0.inner;
        let diffs: Vec<TreeDigest> = inner.index.read("look up diff id", |connection| {
            connection
                .prepare_cached("SELECT diff FROM layers WHERE diff_id = ?1 AND diff_id <> x'' ORDER BY used DESC")?
                .query_map([diff_id.as_bytes()], |row| row.get(0).map(TreeDigest::from_bytes))?
                .collect()
        })?;
        for diff in diffs {
            if self.is_complete(&diff)? {
                let diff_id = Some(*diff_id);
                return Ok(Some(Layer { diff, diff_id }));
            }
        }
        Ok(None)
    }

    /// Opens an OCI blob; `None` when it is not here, or not whole: it can be made or fetched again.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be looked up or opened.
    pub fn open_oci_blob(&self, digest: &Sha256Digest) -> Result<Option<File>, StoreError> {
        let inner = &self.0.inner;
        // The guard keeps gc from removing the file between look and open; an open file stays readable.
        let guard = inner.read_guard()?;
        let pending = inner.pending().used(|batch| batch.oci.contains_key(digest));
        let row = match pending {
            Some(_) => None,
            None => inner.index.read("look up layer blob", |c| oci_row(c, digest))?,
        };
        let Some(used) = pending.or(row.map(|row| row.used)) else {
            return Ok(None);
        };
        let path = inner.oci_file(digest);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&inner.layers_fd, digest.to_string(), flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(err) => return Err(StoreError::io("open layer", &path)(err.into())),
        };
        if let Some(row) = row {
            let size = file.metadata().map_err(StoreError::io("open layer", &path))?.len();
            if size != row.size || inner.is_suspect(row.made) && !inner.oci_is_sound(digest)? {
                return Ok(None);
            }
        }
        if let Some(guard) = guard
            && inner.is_stale(used)
        {
            inner.register(guard, |batch| {
                batch.touched_oci.insert(*digest);
            })?;
        }
        Ok(Some(file))
    }

    /// Renames a finished scratch file in; the caller has checked its digest. A sound one that is there already stays.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be moved; it is then still at `path`.
    pub fn adopt_oci_blob(&self, path: &Path, digest: &Sha256Digest) -> Result<(), StoreError> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let size = file.metadata().map_err(StoreError::io("open", path))?.len();
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))
            .map_err(|err| StoreError::io("protect", path)(err.into()))?;
        let guard = inner.sweep_lock.guard()?;
        match inner.move_oci(CWD, path, digest) {
            Ok(Moved::In) => {}
            Ok(Moved::Needless) => std::fs::remove_file(path).map_err(StoreError::io("remove", path))?,
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {
                drop(guard);
                let temp = inner.temp_file()?;
                io::copy(&mut &file, &mut temp.file()).map_err(StoreError::io("copy", path))?;
                self.adopt_oci_blob(temp.path(), digest)?;
                temp.keep();
                return std::fs::remove_file(path).map_err(StoreError::io("remove", path));
            }
            Err(err) => return Err(err),
        }
        inner.register(guard, |batch| {
            batch.oci.insert(*digest, size);
        })
    }

    /// Stores bytes under their SHA-256, such as a manifest.
    ///
    /// # Errors
    /// [`StoreError`] when writing fails; nothing is kept.
    pub fn put_oci_bytes(&self, bytes: &[u8]) -> Result<Sha256Digest, StoreError> {
        let digest = Sha256Digest::of(bytes);
        if self.open_oci_blob(&digest)?.is_some() {
            return Ok(digest);
        }
        let temp = self.0.inner.temp_file()?;
        temp.file()
            .write_all(bytes)
            .map_err(StoreError::io("write layer", temp.path()))?;
        self.adopt_oci_blob(temp.path(), &digest)?;
        temp.keep();
        Ok(digest)
    }
}

fn diff_id_column(layer: &Layer) -> &[u8] {
    layer.diff_id.as_ref().map_or(&[], |id| id.as_bytes())
}

impl Inner {
    /// All compressed forms of a layer.
    pub(super) fn layer_digests(&self, layer: &Layer) -> Result<Vec<Sha256Digest>, StoreError> {
        self.index.read("look up layer", |connection| {
            connection
                .prepare_cached("SELECT digest FROM layers WHERE diff = ?1 AND diff_id = ?2")?
                .query_map(params![layer.diff.as_bytes(), diff_id_column(layer)], |row| {
                    row.get(0).map(Sha256Digest::from_bytes)
                })?
                .collect()
        })
    }

    pub(super) fn find_oci(&self, digest: &Sha256Digest) -> Result<Option<i64>, StoreError> {
        let pending = self.pending().used(|batch| batch.oci.contains_key(digest));
        if pending.is_some() {
            return Ok(pending);
        }
        let row = self.index.read("look up layer blob", |c| oci_row(c, digest))?;
        Ok(row.map(|row| row.used))
    }

    pub(super) fn oci_file(&self, digest: &Sha256Digest) -> std::path::PathBuf {
        self.layers.join(digest.to_string())
    }
}

//! What is in `cbs.db`.
//!
//! `user_version` is [`FORMAT`]; it changes with any table below, with the pack encoding and with the record encodings
//! of the store. Times are *ticks*: milliseconds since 1970, made strictly increasing by [`super::index`], so that a
//! clock that jumps back cannot make new things look old.

/// Version of everything the store writes apart from directories, which carry their own.
pub(super) const FORMAT: u32 = 1;

/// The tables of format 1.
pub(super) const SCHEMA: &str = "
-- The newest tick given out, and the number of the next pack.
CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 1), tick INTEGER NOT NULL, pack INTEGER NOT NULL);
INSERT INTO meta VALUES(1, 0, 1);

-- Transactions whose blobs may not have reached the disk, and the boot that made them. Gone once syncfs was called.
CREATE TABLE batches(tick INTEGER PRIMARY KEY, boot TEXT NOT NULL);

-- pack NULL: the file blobs/ab/<hex>. made: the tick of the transaction that added the row.
CREATE TABLE blobs(
    digest BLOB PRIMARY KEY, size INTEGER NOT NULL, pack INTEGER, offset INTEGER,
    used INTEGER NOT NULL, made INTEGER NOT NULL
) WITHOUT ROWID;

-- complete: all below it was seen to be here; nothing but damage takes it away while the row is there.
CREATE TABLE directories(
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, complete INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX directories_used ON directories(used);

-- kept: gc has not dropped its content.
CREATE TABLE realisations(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, kept INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX realisations_used ON realisations(used);
CREATE TABLE aliases(alias BLOB PRIMARY KEY, key BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE roots(name TEXT PRIMARY KEY, created INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE leases(id TEXT PRIMARY KEY, started INTEGER NOT NULL, pid INTEGER NOT NULL) WITHOUT ROWID;

-- Files layers/<sha256 hex>.
CREATE TABLE oci(digest BLOB PRIMARY KEY, size INTEGER NOT NULL, used INTEGER NOT NULL, made INTEGER NOT NULL)
    WITHOUT ROWID;
-- Compressed forms of a layer. diff_id: the layer's own, empty when it was made here; tar_id: the blob's.
CREATE TABLE layers(
    diff BLOB NOT NULL, diff_id BLOB NOT NULL, variant TEXT NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
    media_type TEXT NOT NULL, tar_id BLOB, used INTEGER NOT NULL, PRIMARY KEY(diff, diff_id, variant)
) WITHOUT ROWID;
CREATE INDEX layers_diff_id ON layers(diff_id) WHERE diff_id <> x'';

CREATE TABLE facts(
    namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, written INTEGER NOT NULL,
    PRIMARY KEY(namespace, key)
) WITHOUT ROWID;

-- Folders caches/<hash>/<slot>.
CREATE TABLE caches(
    hash TEXT NOT NULL, slot INTEGER NOT NULL, name TEXT NOT NULL, used INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY(hash, slot)
) WITHOUT ROWID;
";

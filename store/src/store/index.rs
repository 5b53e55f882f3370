//! The SQLite side: one writing connection, a pool of reading ones, ticks.
//!
//! Readers never wait for writers (WAL). Writers of all processes take turns; waiting for one's turn has no deadline,
//! so `SQLITE_BUSY` is nobody else's business.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::Access;
use super::locks::SweepLock;
use super::schema::{FORMAT, SCHEMA};
use crate::StoreError;

/// WAL size at which closing the store moves it into the database, so that the next open has little to read.
const CLOSE_CHECKPOINT_BYTES: u64 = 2 << 20;
/// Reading connections kept for the next caller.
const POOL: usize = 16;

#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    access: Access,
    /// Set when the folder cannot be written at all, so that SQLite could not make its shared-memory file.
    immutable: bool,
    writer: Mutex<Option<Connection>>,
    readers: Mutex<Vec<Connection>>,
}

/// Milliseconds since 1970 by the wall clock.
pub(super) fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Index {
    /// Opens the database, laying it out when it is new.
    pub(super) fn open(root: &Path, access: Access, lock: &SweepLock) -> Result<Self, StoreError> {
        let mut index = Self {
            path: root.join("cbs.db"),
            access,
            immutable: false,
            writer: Mutex::new(None),
            readers: Mutex::new(Vec::new()),
        };
        match access {
            Access::ReadWrite => {
                let connection = index.connect()?;
                if index.version(&connection)? == 0 {
                    let _init = lock.init()?;
                    if index.version(&connection)? == 0 {
                        index.check_empty(&connection)?;
                        lay_out(&connection).map_err(index.shape("create tables"))?;
                    }
                }
                *index.writer.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(connection);
            }
            Access::ReadOnly => {
                std::fs::metadata(&index.path).map_err(StoreError::io("open store", root))?;
                let open = |index: &Self| {
                    index
                        .connect()
                        .and_then(|c| index.version(&c).map(|version| (c, version)))
                };
                let (connection, version) = match open(&index) {
                    // What is in the log would be missed, without a word.
                    Err(StoreError::Index { .. }) if index.wal_bytes() > 0 => {
                        return Err(StoreError::NeedsWriting { path: root.to_owned() });
                    }
                    Err(StoreError::Index { .. }) => {
                        index.immutable = true;
                        open(&index)?
                    }
                    other => other?,
                };
                if version == 0 {
                    index.check_empty(&connection)?;
                    return Err(StoreError::Empty { path: root.to_owned() });
                }
                index.give_back(connection);
            }
        }
        Ok(index)
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        self.try_connect().map_err(self.shape("open database"))
    }

    /// Shapes an error of SQLite, which keeps to itself why it cannot open a file: whoever tries the same is told.
    fn shape(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
        move |source| match source.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) => match std::fs::File::open(&self.path) {
                Err(err) => StoreError::io("open database", &self.path)(err),
                Ok(_) => StoreError::index(action)(source),
            },
            _ => StoreError::index(action)(source),
        }
    }

    /// Refuses a database of somebody else's.
    fn check_empty(&self, connection: &Connection) -> Result<(), StoreError> {
        let tables: u32 = connection
            .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
            .map_err(self.shape("read format"))?;
        if tables == 0 {
            return Ok(());
        }
        let path = self.path.clone();
        Err(StoreError::NotAStore { path })
    }

    fn try_connect(&self) -> rusqlite::Result<Connection> {
        let base = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = match self.access {
            Access::ReadWrite => {
                let flags = base | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
                Connection::open_with_flags(&self.path, flags)?
            }
            Access::ReadOnly if self.immutable => {
                let flags = base | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
                Connection::open_with_flags(uri(&self.path), flags)?
            }
            Access::ReadOnly => Connection::open_with_flags(&self.path, base | OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        connection.busy_handler(Some(wait_for_turn))?;
        connection.set_prepared_statement_cache_capacity(64);
        // Closing must not cost a sync; `close` moves a long log by its own rule.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // What is mapped counts as this process's memory, once for each connection.
        connection.execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA mmap_size = 16777216;
             PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 16777216;",
        )?;
        Ok(connection)
    }

    fn version(&self, connection: &Connection) -> Result<u32, StoreError> {
        let found: u32 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(self.shape("read format"))?;
        if found > FORMAT {
            return Err(StoreError::NewerFormat {
                path: self.path.parent().unwrap_or(&self.path).to_owned(),
                found,
                known: FORMAT,
            });
        }
        Ok(found)
    }

    /// Runs queries on a connection of the pool.
    pub(super) fn read<T>(
        &self,
        action: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let result = query(&connection).map_err(self.shape(action));
        self.give_back(connection);
        result
    }

    fn give_back(&self, connection: Connection) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < POOL {
            readers.push(connection);
        }
    }

    /// Runs a transaction with a tick of its own. `change` may run again when the database asks for a retry.
    pub(super) fn write<T>(
        &self,
        action: &'static str,
        change: impl FnMut(&Transaction<'_>, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.transact(action, "NORMAL", change)
    }

    /// As [`Index::write`], on disk when it returns: for rows whose absence is about to be made true.
    pub(super) fn write_synced<T>(
        &self,
        action: &'static str,
        change: impl FnMut(&Transaction<'_>, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.transact(action, "FULL", change)
    }

    fn transact<T>(
        &self,
        action: &'static str,
        synchronous: &str,
        mut change: impl FnMut(&Transaction<'_>, i64) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        if self.access == Access::ReadOnly {
            return Err(StoreError::ReadOnly {
                path: self.path.parent().unwrap_or(&self.path).to_owned(),
            });
        }
        let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match &mut *slot {
            Some(connection) => connection,
            empty => empty.insert(self.connect()?),
        };
        let mut tries = 0;
        loop {
            let result = attempt(connection, synchronous, &mut change);
            match result {
                Err(err) if is_busy(&err) => {
                    wait_for_turn(tries);
                    tries = tries.saturating_add(1);
                }
                other => return other.map_err(self.shape(action)),
            }
        }
    }

    /// The newest tick given out.
    pub(super) fn tick(&self) -> Result<i64, StoreError> {
        self.read("read clock", |c| {
            c.query_row("SELECT tick FROM meta", [], |row| row.get(0))
        })
    }

    /// Moves the write-ahead log into the database as far as readers allow.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        self.read("checkpoint", |c| {
            c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        })
    }

    /// Gives free pages back to the file system.
    pub(super) fn shrink(&self) -> Result<(), StoreError> {
        /// Pages per step, so that other writers get their turn.
        const PAGES: u32 = 2_000;
        loop {
            let free: u32 = self.read("measure database", |c| {
                c.query_row("PRAGMA freelist_count", [], |row| row.get(0))
            })?;
            if free == 0 {
                break;
            }
            let slot = &mut *self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(connection) = slot {
                let result = connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"));
                result.map_err(StoreError::index("shrink database"))?;
            }
            if free <= PAGES {
                break;
            }
        }
        self.empty_log()
    }

    /// Moves the whole log into the database and makes it empty, unless others are at work.
    fn empty_log(&self) -> Result<(), StoreError> {
        let connection = self.connect()?;
        let result = (|| {
            // Others' readers may take long; this can wait for another time.
            connection.busy_timeout(Duration::ZERO)?;
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })();
        match result {
            Err(err) if !is_busy(&err) => Err(StoreError::index("checkpoint")(err)),
            _ => Ok(()),
        }
    }

    /// Bytes of the write-ahead log.
    pub(super) fn wal_bytes(&self) -> u64 {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        std::fs::metadata(name).map_or(0, |meta| meta.len())
    }

    /// To be called when the store is closed.
    pub(super) fn close(&self) {
        if self.access == Access::ReadWrite && self.wal_bytes() > CLOSE_CHECKPOINT_BYTES {
            // The log stays as it is, complete, when this fails.
            let _ = self.empty_log();
        }
    }

    /// The database file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn attempt<T>(
    connection: &mut Connection,
    synchronous: &str,
    change: &mut impl FnMut(&Transaction<'_>, i64) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    if synchronous != "NORMAL" {
        connection.execute_batch("PRAGMA synchronous = FULL")?;
    }
    let result = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tick = transaction
            .prepare_cached("UPDATE meta SET tick = max(tick + 1, ?1) RETURNING tick")?
            .query_row([wall_clock()], |row| row.get(0))?;
        let value = change(&transaction, tick)?;
        transaction.commit()?;
        Ok(value)
    })();
    if synchronous != "NORMAL" {
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
    }
    result
}

fn lay_out(connection: &Connection) -> rusqlite::Result<()> {
    // Lets gc give pages back to the file system; must come before the first table.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    let mut tries = 0;
    // Changing the journal mode does not go through the busy handler.
    while let Err(err) = connection.execute_batch("PRAGMA journal_mode = WAL") {
        if !is_busy(&err) {
            return Err(err);
        }
        wait_for_turn(tries);
        tries = tries.saturating_add(1);
    }
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}

fn is_busy(err: &rusqlite::Error) -> bool {
    matches!(
        err.sqlite_error_code(),
        // The last one: too many opened it at the same moment for one of them to get through.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
    )
}

fn wait_for_turn(tries: i32) -> bool {
    std::thread::sleep(Duration::from_micros(match tries {
        0..4 => 100,
        4..20 => 1_000,
        _ => 5_000,
    }));
    true
}

/// The URI of a file on a disk that nobody can write.
fn uri(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;
    let mut text = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text.push_str("?immutable=1");
    text
}

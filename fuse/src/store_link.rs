//! The way from the threads that serve requests to the store.
//!
//! ```text
//! serving threads ── question ──► queue ──► workers ── store
//!  (own descriptor table) ◄── memory, never descriptors ──┘  (the process's table)
//! ```
//! Why two kinds of thread: the process that serves a mount also uses it (it mounts overlays over it). Killed while one
//! of its own threads waits for an answer, that thread would keep the descriptor table alive, and with it the FUSE
//! device, so that the kernel would wait for an answer for ever and the process could not die (seen in 23 of 60 kills).
//! So the device is in a table that only the serving threads share: they wait for nobody, die at once, and the kernel
//! ends the connection. The price is that the store's files are not in that table.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use cbs_store::{BlobDigest, ContentStore, Directory, StoreError, TreeDigest};

use crate::BrowseRoots;
use crate::sync::lock;

/// What workers answer from. It never leaves them: dropping it elsewhere would close descriptors of the wrong table.
pub(crate) struct StoreSide {
    /// The store.
    pub(crate) store: Arc<dyn ContentStore>,
    /// The names at the root of a browsing mount.
    pub(crate) roots: Option<Box<dyn BrowseRoots>>,
}

/// Asks the store from a serving thread. Dropping it ends the workers.
pub(crate) struct StoreLink {
    queue: Arc<Queue>,
}

/// A question that carries its own way back.
type Question = Box<dyn FnOnce(&StoreSide) + Send>;

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Default)]
struct State {
    questions: VecDeque<Question>,
    closed: bool,
}

impl StoreLink {
    /// Starts workers, which end with the link. Call it on a thread that has the process's descriptor table.
    pub(crate) fn start(side: StoreSide, workers: usize) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let link = Self {
            queue: Arc::new(Queue::default()),
        };
        let side = Arc::new(side);
        let mut threads = Vec::new();
        for _ in 0..workers {
            let (queue, side) = (Arc::clone(&link.queue), Arc::clone(&side));
            let worker = thread::Builder::new().name("cbs-fuse-store".to_owned());
            threads.push(worker.spawn(move || queue.work(&side))?);
        }
        Ok((link, threads))
    }

    /// A directory, `None` when it is not in the store.
    pub(crate) fn directory(&self, digest: TreeDigest) -> Result<Option<Arc<Directory>>, LinkError> {
        self.ask(move |side| side.store.directory(&digest))
    }

    /// All bytes of a small blob. `ahead` are blobs that may be wanted next: they are loaded meanwhile and given to `keep`.
    pub(crate) fn small_blob(
        &self,
        digest: BlobDigest,
        ahead: Vec<BlobDigest>,
        keep: impl Fn(BlobDigest, Arc<[u8]>) + Send + 'static,
    ) -> Result<Option<Arc<[u8]>>, LinkError> {
        let (answer, answered) = channel();
        self.queue
            .push(Box::new(move |side| reply(&answer, load_small(side, &digest))));
        if !ahead.is_empty() {
            self.queue.push(Box::new(move |side| {
                for digest in ahead {
                    // What cannot be had now is asked for, and complained about, when it is needed.
                    if let Ok(Some(bytes)) = load_small(side, &digest) {
                        keep(digest, bytes);
                    }
                }
            }));
        }
        answered.recv().map_err(|_| LinkError::Lost)?.map_err(LinkError::Store)
    }

    /// A piece of a blob of any size.
    pub(crate) fn piece(&self, digest: BlobDigest, offset: u64, size: usize) -> Result<Option<Vec<u8>>, LinkError> {
        self.ask(move |side| match side.store.blob(&digest)? {
            Some(blob) => read_piece(&blob, offset, size).map(Some),
            None => Ok(None),
        })
    }

    /// The names at the root of a browsing mount; none on other mounts.
    pub(crate) fn roots(&self) -> Result<Vec<(Vec<u8>, TreeDigest)>, LinkError> {
        self.ask(|side| side.roots.as_ref().map_or(Ok(Vec::new()), |roots| roots.list()))
    }

    /// The tree of one name at the root of a browsing mount.
    pub(crate) fn root(&self, name: Vec<u8>) -> Result<Option<TreeDigest>, LinkError> {
        self.ask(move |side| side.roots.as_ref().map_or(Ok(None), |roots| roots.find(&name)))
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&StoreSide) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, LinkError> {
        let (answer, answered) = channel();
        self.queue.push(Box::new(move |side| reply(&answer, question(side))));
        answered.recv().map_err(|_| LinkError::Lost)?.map_err(LinkError::Store)
    }
}

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The store failed.
    Store(StoreError),
    /// The worker gave up, which a panic inside the store does.
    Lost,
}

impl fmt::Debug for StoreLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLink").finish_non_exhaustive()
    }
}

impl Drop for StoreLink {
    fn drop(&mut self) {
        lock(&self.queue.state).closed = true;
        self.queue.asked.notify_all();
    }
}

impl Queue {
    fn push(&self, question: Question) {
        lock(&self.state).questions.push_back(question);
        self.asked.notify_one();
    }

    fn work(&self, side: &StoreSide) {
        while let Some(question) = self.next() {
            // A panic inside the store loses one answer (the asker sees its channel close), not the mount.
            if catch_unwind(AssertUnwindSafe(|| question(side))).is_err() {
                continue;
            }
        }
    }

    fn next(&self) -> Option<Question> {
        let mut state = lock(&self.state);
        loop {
            if let Some(question) = state.questions.pop_front() {
                return Some(question);
            }
            if state.closed {
                return None;
            }
            state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn load_small(side: &StoreSide, digest: &BlobDigest) -> Result<Option<Arc<[u8]>>, StoreError> {
    let Some(blob) = side.store.blob(digest)? else {
        return Ok(None);
    };
    if let cbs_store::Blob::Small(bytes) = blob {
        return Ok(Some(bytes));
    }
    read_piece(&blob, 0, usize::try_from(blob.size()).unwrap_or(usize::MAX)).map(|bytes| Some(bytes.into()))
}

fn reply<T>(answer: &Sender<T>, value: T) {
    // The asker waits until it has the answer; it is gone only when its thread is.
    let _ = answer.send(value);
}

fn read_piece(blob: &cbs_store::Blob, offset: u64, size: usize) -> Result<Vec<u8>, StoreError> {
    let left = usize::try_from(blob.size().saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(left)];
    let count = blob
        .read_at(&mut bytes, offset)
        .map_err(StoreError::io("read blob", std::path::Path::new("blobs")))?;
    bytes.truncate(count);
    Ok(bytes)
}

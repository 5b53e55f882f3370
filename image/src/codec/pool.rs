//! The threads that compress blocks, shared by all layers of an export.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::Compression;
use super::block::{Block, Workbench};

/// A block under way.
#[derive(Debug)]
pub(super) struct Pending {
    answer: Receiver<io::Result<Block>>,
    /// Counted out when the block was taken, or nobody wants it any more.
    _counted: Counted,
}

impl Pending {
    /// The block, compressed.
    ///
    /// # Errors
    /// The library's; also when the thread that had it panicked.
    pub(super) fn wait(self) -> io::Result<Block> {
        let answer = self.answer.recv();
        answer.map_err(|_| io::Error::other("a compression thread failed"))?
    }
}

/// One of the blocks under way.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Job {
    block: Block,
    reply: SyncSender<io::Result<Block>>,
}

/// Compression threads. Dropping the pool ends and joins them.
pub struct Pool {
    jobs: Option<Sender<Job>>,
    threads: NonZeroUsize,
    workers: Vec<JoinHandle<()>>,
    under_way: Arc<AtomicUsize>,
    /// Blocks whose memory waits for its next use.
    spare: Mutex<Vec<Block>>,
}

impl Pool {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// What the operating system says when it starts no thread.
    pub fn new(threads: NonZeroUsize) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self {
            jobs: Some(jobs),
            threads,
            workers: Vec::with_capacity(threads.get()),
            under_way: Arc::default(),
            spare: Mutex::default(),
        };
        for index in 0..threads.get() {
            let queue = Arc::clone(&queue);
            let worker = std::thread::Builder::new()
                .name(format!("compress-{index}"))
                .spawn(move || work(&queue))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.get()
    }

    /// Queues a block. The caller bounds how many are under way.
    pub(super) fn submit(&self, block: Block) -> io::Result<Pending> {
        let (reply, answer) = sync_channel(1);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&self.under_way));
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(Job { block, reply }));
        match sent {
            Some(Ok(())) => Ok(Pending {
                answer,
                _counted: counted,
            }),
            _ => Err(io::Error::other("the compression threads have ended")),
        }
    }

    /// Blocks that keep all threads busy, with some to spare.
    fn enough(&self) -> usize {
        2 * self.threads() + 2
    }

    /// Whether so many blocks of all streams are under way that more would only take memory.
    pub(super) fn is_crowded(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) >= self.enough()
    }

    /// An empty block, with the memory of an earlier one if there is one.
    pub(super) fn spare_block(&self, compression: Compression, level: i32) -> Block {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match spare {
            Some(mut block) => {
                block.reset(compression, level);
                block
            }
            None => Block::new(compression, level),
        }
    }

    /// Takes a block that is done with.
    pub(super) fn give_back(&self, block: Block) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.enough() {
            spare.push(block);
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let mut workbench = Workbench::default();
    loop {
        // The guard must not outlive this statement, or one worker would keep the others out while it compresses.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { mut block, reply }) = next else { return };
        let compressed = workbench.compress(&mut block);
        // A failed send means that the encoder was dropped: nobody wants the answer.
        drop(reply.send(compressed.map(|()| block)));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has told its encoder by dropping the reply.
            drop(worker.join());
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish()
    }
}

//! The threads that compress blocks, shared by all layers of an export.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::block::{Block, Workbench};

/// Where the answer to a job arrives.
pub(super) type Pending = Receiver<io::Result<Vec<u8>>>;

struct Job {
    block: Block,
    reply: SyncSender<io::Result<Vec<u8>>>,
}

/// Compression threads. Dropping the pool ends and joins them.
pub struct Pool {
    jobs: Option<Sender<Job>>,
    threads: NonZeroUsize,
    workers: Vec<JoinHandle<()>>,
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
        let (reply, pending) = sync_channel(1);
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(Job { block, reply }));
        match sent {
            Some(Ok(())) => Ok(pending),
            _ => Err(io::Error::other("the compression threads have ended")),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let mut workbench = Workbench::default();
    loop {
        // The guard must not outlive this statement, or one worker would keep the others out while it compresses.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, reply }) = next else { return };
        // A failed send means that the encoder was dropped: nobody wants the answer.
        drop(reply.send(workbench.compress(&block)));
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

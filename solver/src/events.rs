//! What happens during a solve, for whoever shows it.
//!
//! ```text
//! scheduler, LogSink, Progress ── EventSender (never waits) ──► queue ──► EventReceiver ── plain | rawjson | tree
//! ```
//! A slow reader must not slow a build down. Events about vertices are few (a handful each) and always arrive; output
//! of steps is dropped from the queue while more than a budget of it waits there, and the reader is told how much was.
//! The stored log of a step is whole in any case.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::graph::OpKind;
use crate::llb::{VertexDigest, pb};

/// How much output of steps waits for a slow reader, in bytes.
pub const LOG_BUDGET: usize = 8 << 20;

/// Where a step printed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    /// The file descriptor's number, as BuildKit's protocol has it.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// How a vertex that ended came to its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran.
    Ran,
    /// A result was known.
    Cached,
    /// It failed; the message says why.
    Failed(String),
    /// It was stopped.
    Cancelled,
}

/// A vertex as a reader first hears of it.
#[derive(Clone, Debug, PartialEq)]
pub struct VertexAdded {
    /// Names it in all other events.
    pub vertex: VertexDigest,
    /// What people see.
    pub name: String,
    /// What kind of work it is.
    pub kind: OpKind,
    /// `os/arch[/variant]` when it matters.
    pub platform: Option<String>,
    /// The vertices it reads.
    pub inputs: Vec<VertexDigest>,
    /// Shown under this heading.
    pub group: Option<pb::ProgressGroup>,
}

/// How far one thing that a vertex does has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Who does it.
    pub vertex: VertexDigest,
    /// Unique within the vertex: `transferring context`, a layer's digest.
    pub id: String,
    /// Done so far, in bytes or pieces.
    pub current: u64,
    /// Of how many, zero when unknown.
    pub total: u64,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// A remark that is no failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// What it is about.
    pub vertex: VertexDigest,
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where to read on; may be empty.
    pub url: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The graph has this vertex. All come before anything else of the solve.
    Added(VertexAdded),
    /// Work on it began; it may begin again, when a source is first pinned and later fetched.
    Started {
        /// Which.
        vertex: VertexDigest,
        /// When.
        time: SystemTime,
    },
    /// Work on it ended, or it was found cached without having begun.
    Ended {
        /// Which.
        vertex: VertexDigest,
        /// When.
        time: SystemTime,
        /// How.
        outcome: Outcome,
    },
    /// Something a step does came further.
    Status(Status),
    /// A step printed.
    Log {
        /// Which.
        vertex: VertexDigest,
        /// When.
        time: SystemTime,
        /// Where to.
        stream: Stream,
        /// What; not necessarily whole lines or UTF-8.
        bytes: Arc<[u8]>,
    },
    /// A remark.
    Warning(Warning),
    /// This reader was too slow for this many bytes of output.
    LogDropped {
        /// How many.
        bytes: u64,
    },
}

/// A queue of events whose sender never waits.
pub fn channel() -> (EventSender, EventReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let shared = Shared {
        sender,
        queued: queued.clone(),
        dropped: AtomicU64::new(0),
    };
    (EventSender(Some(Arc::new(shared))), EventReceiver { receiver, queued })
}

/// The sending half; cloning is cheap.
#[derive(Clone, Debug)]
pub struct EventSender(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    sender: mpsc::UnboundedSender<Event>,
    /// Bytes of output that wait in the queue.
    queued: Arc<AtomicUsize>,
    /// Bytes of output not queued since the reader was last told.
    dropped: AtomicU64,
}

impl EventSender {
    /// A sender whose events nobody reads.
    pub fn discard() -> Self {
        Self(None)
    }

    /// Queues an event; does nothing when the receiver is gone.
    pub fn send(&self, event: Event) {
        let Some(shared) = &self.0 else { return };
        if let Event::Log { bytes, .. } = &event {
            let size = bytes.len();
            if shared.queued.load(Ordering::Relaxed).saturating_add(size) > LOG_BUDGET {
                shared.dropped.fetch_add(size as u64, Ordering::Relaxed);
                return;
            }
            shared.queued.fetch_add(size, Ordering::Relaxed);
        }
        // Before what comes next, be it more output or the end of the step.
        let bytes = shared.dropped.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            shared.post(Event::LogDropped { bytes });
        }
        shared.post(event);
    }
}

impl Shared {
    fn post(&self, event: Event) {
        // A reader that went away does not stop the build.
        drop(self.sender.send(event));
    }
}

/// The reading half.
#[derive(Debug)]
pub struct EventReceiver {
    receiver: mpsc::UnboundedReceiver<Event>,
    queued: Arc<AtomicUsize>,
}

impl EventReceiver {
    /// The next event; `None` when all senders are gone and everything was read.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        event.inspect(|event| self.taken(event))
    }

    /// The next event if one waits.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok();
        event.inspect(|event| self.taken(event))
    }

    /// The next event, for a thread outside the runtime.
    pub fn blocking_recv(&mut self) -> Option<Event> {
        let event = self.receiver.blocking_recv();
        event.inspect(|event| self.taken(event))
    }

    fn taken(&self, event: &Event) {
        if let Event::Log { bytes, .. } = event {
            self.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
    }
}

/// Where time comes from; tests bring their own.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Seconds since 1970, as the store records them.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(size: usize) -> Event {
        Event::Log {
            vertex: VertexDigest::of(b"v"),
            time: SystemTime::UNIX_EPOCH,
            stream: Stream::Stdout,
            bytes: vec![0; size].into(),
        }
    }

    #[test]
    fn a_slow_reader_loses_output_and_is_told_but_nothing_else() {
        let (sender, mut receiver) = channel();
        for _ in 0..20 {
            sender.send(log(1 << 20));
        }
        let started = Event::Started {
            vertex: VertexDigest::of(b"v"),
            time: SystemTime::UNIX_EPOCH,
        };
        sender.send(started.clone());
        for _ in 0..8 {
            assert_eq!(receiver.try_recv(), Some(log(1 << 20)));
        }
        assert_eq!(receiver.try_recv(), Some(Event::LogDropped { bytes: 12 << 20 }));
        assert_eq!(receiver.try_recv(), Some(started));
        sender.send(log(1));
        assert_eq!(receiver.try_recv(), Some(log(1)));
        drop(sender);
        assert_eq!(receiver.blocking_recv(), None);
    }
}

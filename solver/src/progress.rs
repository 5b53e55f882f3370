//! How far a step is: the executor's side of [`Event::Status`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::events::{Clock, Event, EventSender, Status, Warning};
use crate::llb::VertexDigest;

/// The same status is sent no more often than this.
const INTERVAL: Duration = Duration::from_millis(100);

/// Reports of one step; cloning is cheap, and every call returns at once.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vertex: VertexDigest,
    events: EventSender,
    clock: Arc<dyn Clock>,
    running: Mutex<HashMap<String, Running>>,
    peak_memory: AtomicU64,
}

#[derive(Debug)]
struct Running {
    started: SystemTime,
    sent: SystemTime,
    current: u64,
    total: u64,
}

impl Progress {
    /// Reports of `vertex` to `events`.
    pub fn new(vertex: VertexDigest, events: EventSender, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            vertex,
            events,
            clock,
            running: Mutex::default(),
            peak_memory: AtomicU64::new(0),
        }))
    }

    /// Reports that nobody hears, for tests of executors.
    pub fn discard() -> Self {
        let clock = Arc::new(crate::events::SystemClock);
        Self::new(VertexDigest::of(b""), EventSender::discard(), clock)
    }

    /// Thing `id` has come to `current` of `total` (zero: unknown), in bytes or pieces. The first call begins it;
    /// calls in quick succession are merged.
    pub fn update(&self, id: &str, current: u64, total: u64) {
        let now = self.0.clock.now();
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = match running.get_mut(id) {
            Some(begun) => {
                (begun.current, begun.total) = (current, total);
                if now.duration_since(begun.sent).unwrap_or(INTERVAL) < INTERVAL {
                    return;
                }
                begun.sent = now;
                begun
            }
            None => running.entry(id.to_owned()).or_insert(Running {
                started: now,
                sent: now,
                current,
                total,
            }),
        };
        self.send(id, begun, None);
    }

    /// Thing `id` is done.
    pub fn done(&self, id: &str) {
        let now = self.0.clock.now();
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut begun = running.remove(id).unwrap_or(Running {
            started: now,
            sent: now,
            current: 0,
            total: 0,
        });
        begun.current = begun.current.max(begun.total);
        self.send(id, &begun, Some(now));
    }

    /// A remark that is no failure.
    pub fn warn(&self, short: impl Into<String>, detail: Vec<String>, url: impl Into<String>) {
        self.0.events.send(Event::Warning(Warning {
            vertex: self.0.vertex,
            short: short.into(),
            detail,
            url: url.into(),
        }));
    }

    /// The most memory the step used, in bytes; remembered with its result.
    pub fn set_peak_memory(&self, bytes: u64) {
        self.0.peak_memory.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(crate) fn peak_memory(&self) -> u64 {
        self.0.peak_memory.load(Ordering::Relaxed)
    }

    fn send(&self, id: &str, running: &Running, completed: Option<SystemTime>) {
        self.0.events.send(Event::Status(Status {
            vertex: self.0.vertex,
            id: id.to_owned(),
            current: running.current,
            total: running.total,
            started: running.started,
            completed,
        }));
    }
}

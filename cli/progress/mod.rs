//! How a build shows itself: plain lines, a live view, BuildKit's JSON, or not at all.
//!
//! A renderer is a consumer of the solver's events on a thread of its own; it writes to standard error only.

mod plain;
mod rawjson;
mod tty;

pub(crate) use rawjson::{base64, rfc3339};

use std::io::{IsTerminal, Write};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use cbs_solver::llb::VertexDigest;
use cbs_solver::{Event, EventReceiver, EventSender, OpKind, Outcome, Status, Stream, VertexAdded};

use crate::build_args::ProgressMode;
use crate::live::LiveLog;

/// Takes events as they come.
trait Renderer: Send {
    /// Shows one event.
    fn event(&mut self, event: Event);
    /// Called when a moment passed without an event.
    fn tick(&mut self) {}
    /// Called once at the end.
    fn finish(&mut self);
    /// How long to wait for an event before [`Renderer::tick`]; `None` waits for ever.
    fn interval(&self) -> Option<Duration> {
        None
    }
}

/// A running renderer. Dropping [`Display::events`]' clones and calling [`Display::finish`] ends it.
pub(crate) struct Display {
    events: Option<EventSender>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Starts the renderer a mode asks for.
    pub(crate) fn start(mode: ProgressMode, live: Option<LiveLog>) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let renderer: Option<Box<dyn Renderer>> = match mode {
            ProgressMode::Tty => Some(Box::new(tty::Tty::new())),
            ProgressMode::Auto if on_terminal => Some(Box::new(tty::Tty::new())),
            ProgressMode::Auto | ProgressMode::Plain => Some(Box::new(plain::Plain::new(std::io::stderr()))),
            ProgressMode::Rawjson => Some(Box::new(rawjson::RawJson::new(std::io::stderr()))),
            ProgressMode::Quiet | ProgressMode::None => None,
        };
        let renderer = match (renderer, &live) {
            (Some(renderer), _) => renderer,
            (None, Some(_)) => Box::new(Unseen),
            (None, None) => {
                return Self {
                    events: Some(EventSender::discard()),
                    thread: None,
                };
            }
        };
        let (sender, receiver) = cbs_solver::channel();
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || render(receiver, renderer, live));
        // A machine out of threads still builds, unseen.
        Self {
            events: Some(sender),
            thread: thread.ok(),
        }
    }

    /// Where events go.
    pub(crate) fn events(&self) -> EventSender {
        self.events.clone().unwrap_or_else(EventSender::discard)
    }

    /// Waits until everything sent so far is shown.
    pub(crate) fn finish(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take() {
            // A renderer that panicked has shown what it could.
            thread.join().unwrap_or_default();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Events taken before whoever follows, and a clock that ticks, get their turn.
const MOST_AT_ONCE: usize = 256;

/// Shows nothing, for builds that others may follow.
struct Unseen;

impl Renderer for Unseen {
    fn event(&mut self, _event: Event) {}
    fn finish(&mut self) {}
}

fn render(mut receiver: EventReceiver, mut renderer: Box<dyn Renderer>, mut live: Option<LiveLog>) {
    let mut show = |renderer: &mut dyn Renderer, event: Event, receiver: &mut EventReceiver| {
        // Whoever follows sees the last of what there is, not each piece of it by itself.
        let (mut next, mut taken) = (Some(event), 0);
        while let Some(event) = next {
            if let Some(live) = &mut live {
                live.event(&event);
            }
            renderer.event(event);
            taken += 1;
            next = if taken < MOST_AT_ONCE {
                receiver.try_recv()
            } else {
                None
            };
        }
        if let Some(live) = &mut live {
            live.flush();
        }
    };
    match renderer.interval() {
        None => {
            while let Some(event) = receiver.blocking_recv() {
                show(&mut *renderer, event, &mut receiver);
            }
        }
        Some(interval) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let mut ticks = tokio::time::interval(interval);
                loop {
                    tokio::select! {
                        event = receiver.recv() => match event {
                            Some(event) => show(&mut *renderer, event, &mut receiver),
                            None => return,
                        },
                        _ = ticks.tick() => renderer.tick(),
                    }
                }
            });
        }
    }
    renderer.finish();
}

/// One step of work outside the graph (exporting, loading a definition), shown like a vertex.
pub(crate) struct Task {
    vertex: VertexDigest,
    events: EventSender,
}

impl Task {
    /// Begins a task people see under `name`.
    pub(crate) fn begin(events: &EventSender, name: &str) -> Self {
        let vertex = VertexDigest::of(name.as_bytes());
        events.send(Event::Added(VertexAdded {
            vertex,
            name: name.to_owned(),
            kind: OpKind::Source,
            platform: None,
            inputs: Vec::new(),
            group: None,
        }));
        events.send(Event::Started {
            vertex,
            time: SystemTime::now(),
        });
        Self {
            vertex,
            events: events.clone(),
        }
    }

    /// What work done for the task reports to.
    pub(crate) fn progress(&self) -> TaskProgress {
        TaskProgress {
            vertex: self.vertex,
            events: self.events.clone(),
            started: SystemTime::now(),
        }
    }

    /// Ends it.
    pub(crate) fn end(self, error: Option<String>) {
        let outcome = error.map_or(Outcome::Ran, Outcome::Failed);
        self.events.send(Event::Ended {
            vertex: self.vertex,
            time: SystemTime::now(),
            outcome,
        });
    }
}

/// Shows how far image work for a [`Task`] is.
pub(crate) struct TaskProgress {
    vertex: VertexDigest,
    events: EventSender,
    started: SystemTime,
}

impl cbs_image::progress::Progress for TaskProgress {
    fn status(&self, status: cbs_image::progress::Status<'_>) {
        // Only blobs are counted in bytes.
        let (id, current, total) = if status.id.starts_with("sha256:") {
            (format!("{} {}", status.action, status.id), status.current, status.total)
        } else {
            (status.id.to_owned(), 0, 0)
        };
        self.events.send(Event::Status(Status {
            vertex: self.vertex,
            id,
            current,
            total,
            started: self.started,
            completed: status.is_done.then(SystemTime::now),
        }));
    }
}

/// `3.21MB`, decimal as docker prints sizes.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes}B")
    } else {
        format!("{value:.2}{}", UNITS[unit])
    }
}

/// Splits output into lines, keeping the unfinished rest of each stream for the next piece.
#[derive(Default)]
struct Lines {
    rest: [Vec<u8>; 2],
}

impl Lines {
    /// The lines a piece of output completes; over-long ones are cut in pieces.
    fn push(&mut self, stream: Stream, bytes: &[u8]) -> Vec<String> {
        const LONGEST: usize = 64 << 10;
        let rest = &mut self.rest[usize::from(stream == Stream::Stderr)];
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            rest.extend_from_slice(piece);
            if rest.ends_with(b"\n") || rest.len() > LONGEST {
                lines.push(printable(rest));
                rest.clear();
            }
        }
        lines
    }

    /// What is left at the end.
    fn finish(&mut self) -> Vec<String> {
        let left = self.rest.iter_mut().filter(|rest| !rest.is_empty());
        left.map(|rest| printable(&std::mem::take(rest))).collect()
    }
}

/// A line without its end; what a terminal could obey other than colour is taken out.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    // A progress bar rewrites its line; only its last state is a line.
    let text = text.rsplit('\r').next().unwrap_or_default();
    text.chars()
        .filter(|&c| c == '\t' || c == '\u{1b}' || !c.is_control())
        .collect()
}

/// Writes a line to standard error, in one piece as it is not buffered; a closed pipe is no reason to stop a build.
fn emit(out: &mut impl Write, line: &str) {
    out.write_all(format!("{line}\n").as_bytes()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(Stream::Stdout, b"on"), Vec::<String>::new());
        assert_eq!(lines.push(Stream::Stderr, b"err\n"), ["err"]);
        assert_eq!(
            lines.push(Stream::Stdout, b"e\ntwo\n10%\r20%\nx"),
            ["one", "two", "20%"]
        );
        assert_eq!(lines.finish(), ["x"]);
    }

    #[test]
    fn sizes_read_as_dockers() {
        assert_eq!(human_bytes(999), "999B");
        assert_eq!(human_bytes(3_210_000), "3.21MB");
    }
}

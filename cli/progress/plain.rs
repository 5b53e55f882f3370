//! One line after the other, in BuildKit's shape: `#3 [stage 2/4] RUN make`, `#3 0.52 its output`, `#3 DONE 1.2s`.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use cbs_solver::llb::VertexDigest;
use cbs_solver::{Event, Outcome, Status};

use super::{Lines, Renderer, emit, human_bytes};

/// What is known of a vertex.
#[derive(Default)]
struct Shown {
    name: String,
    /// Given when it is first spoken of.
    number: Option<usize>,
    started: Option<SystemTime>,
    lines: Lines,
}

/// The renderer.
pub(super) struct Plain<W> {
    out: W,
    vertices: HashMap<VertexDigest, Shown>,
    numbered: usize,
    /// Whose lines came last; a blank line stands between vertices.
    last: Option<VertexDigest>,
    /// When something that is still under way was spoken of.
    spoken: HashMap<(VertexDigest, String), SystemTime>,
}

/// How long something may be under way before its state is told (again).
const PATIENCE: Duration = Duration::from_secs(5);

impl<W: Write> Plain<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            vertices: HashMap::new(),
            numbered: 0,
            last: None,
            spoken: HashMap::new(),
        }
    }

    /// Writes lines of a vertex, its header first when it is new.
    fn speak(&mut self, vertex: VertexDigest, lines: &[String]) {
        self.speak_stamped(vertex, "", lines);
    }

    /// The same with a stamp before each line, all in one piece: standard error is not buffered.
    fn speak_stamped(&mut self, vertex: VertexDigest, stamp: &str, lines: &[String]) {
        let shown = self.vertices.entry(vertex).or_default();
        let fresh = shown.number.is_none();
        let number = *shown.number.get_or_insert_with(|| {
            self.numbered += 1;
            self.numbered
        });
        let mut text = String::new();
        if self.last.is_some_and(|last| last != vertex) {
            text.push('\n');
        }
        let head = format!("#{number} ");
        if fresh {
            text.extend([head.as_str(), &shown.name, "\n"]);
        } else if self.last != Some(vertex) {
            text.extend([head.as_str(), "...\n"]);
        }
        self.last = Some(vertex);
        for line in lines {
            text.extend([head.as_str(), stamp, line, "\n"]);
        }
        self.out.write_all(text.as_bytes()).unwrap_or_default();
    }

    /// What is done is told at once, what is under way now and then.
    fn status(&mut self, status: Status, now: SystemTime) {
        let key = (status.vertex, status.id);
        let end = match status.completed {
            Some(completed) => completed,
            None => {
                let last = *self.spoken.entry(key.clone()).or_insert(status.started);
                if now.duration_since(last).unwrap_or_default() < PATIENCE {
                    return;
                }
                self.spoken.insert(key.clone(), now);
                now
            }
        };
        let mut line = key.1.clone();
        match (status.current, status.total) {
            (0, _) => {}
            (current, 0) => line.push_str(&format!(" {}", human_bytes(current))),
            (current, total) => line.push_str(&format!(" {} / {}", human_bytes(current), human_bytes(total))),
        }
        let seconds = end.duration_since(status.started).unwrap_or_default().as_secs_f64();
        if seconds >= 0.05 {
            line.push_str(&format!(" {seconds:.1}s"));
        }
        if status.completed.is_some() {
            line.push_str(" done");
            self.spoken.remove(&key);
        }
        self.speak(key.0, &[line]);
    }

    fn since_start(&self, vertex: &VertexDigest, time: SystemTime) -> f64 {
        let started = self.vertices.get(vertex).and_then(|shown| shown.started);
        started
            .and_then(|started| time.duration_since(started).ok())
            .unwrap_or_default()
            .as_secs_f64()
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Added(added) => {
                self.vertices.entry(added.vertex).or_default().name = added.name.replace('\n', " ");
            }
            Event::Started { vertex, time } => {
                self.vertices.entry(vertex).or_default().started.get_or_insert(time);
                self.speak(vertex, &[]);
            }
            Event::Ended { vertex, time, outcome } => {
                let seconds = self.since_start(&vertex, time);
                let shown = self.vertices.entry(vertex).or_default();
                let mut lines: Vec<String> = shown
                    .lines
                    .finish()
                    .into_iter()
                    .map(|line| format!("{seconds:.3} {line}"))
                    .collect();
                lines.push(match outcome {
                    Outcome::Ran => format!("DONE {seconds:.1}s"),
                    Outcome::Cached => "CACHED".to_owned(),
                    Outcome::Failed(message) => format!("ERROR: {message}"),
                    Outcome::Cancelled => "CANCELED".to_owned(),
                });
                self.speak(vertex, &lines);
                emit(&mut self.out, "");
                self.last = None;
            }
            Event::Status(status) => self.status(status, SystemTime::now()),
            Event::Log {
                vertex,
                time,
                stream,
                bytes,
            } => {
                let seconds = self.since_start(&vertex, time);
                let shown = self.vertices.entry(vertex).or_default();
                let lines = shown.lines.push(stream, &bytes);
                if !lines.is_empty() {
                    self.speak_stamped(vertex, &format!("{seconds:.3} "), &lines);
                }
            }
            Event::Warning(warning) => {
                let mut lines = vec![format!("WARNING: {}", warning.short)];
                lines.extend(warning.detail);
                self.speak(warning.vertex, &lines);
            }
            Event::LogDropped { bytes } => {
                emit(
                    &mut self.out,
                    &format!("[{} of output not shown; the stored log has it]", human_bytes(bytes)),
                );
            }
        }
    }

    fn finish(&mut self) {
        self.out.flush().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cbs_solver::{OpKind, Stream, VertexAdded};

    use super::*;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn the_shape_is_buildkits() {
        let (a, b) = (VertexDigest::of(b"a"), VertexDigest::of(b"b"));
        let added = |vertex, name: &str| {
            let (name, kind) = (name.to_owned(), OpKind::Exec);
            Event::Added(VertexAdded {
                vertex,
                name,
                kind,
                platform: None,
                inputs: vec![],
                group: None,
            })
        };
        let mut plain = Plain::new(Vec::new());
        for event in [
            added(a, "[1/2] RUN one"),
            added(b, "[2/2] RUN two"),
            Event::Started { vertex: a, time: at(0) },
            Event::Log {
                vertex: a,
                time: at(520),
                stream: Stream::Stdout,
                bytes: b"hi\nrest".to_vec().into(),
            },
            Event::Ended {
                vertex: b,
                time: at(600),
                outcome: Outcome::Cached,
            },
            Event::Ended {
                vertex: a,
                time: at(1200),
                outcome: Outcome::Ran,
            },
        ] {
            plain.event(event);
        }
        let text = String::from_utf8(plain.out).expect("UTF-8");
        let want =
            "#1 [1/2] RUN one\n#1 0.520 hi\n\n#2 [2/2] RUN two\n#2 CACHED\n\n#1 ...\n#1 1.200 rest\n#1 DONE 1.2s\n\n";
        assert_eq!(text, want);
    }

    #[test]
    fn what_takes_long_is_told_now_and_then() {
        let vertex = VertexDigest::of(b"a");
        let status = |current, completed| Status {
            vertex,
            id: "sha256:abc".to_owned(),
            current,
            total: 10_000_000,
            started: at(0),
            completed,
        };
        let mut plain = Plain::new(Vec::new());
        for (current, millis) in [
            (1_000, 1_000),
            (2_000_000, 5_200),
            (3_000_000, 6_000),
            (9_000_000, 10_300),
        ] {
            plain.status(status(current, None), at(millis));
        }
        plain.status(status(10_000_000, Some(at(11_000))), at(11_000));
        assert_eq!(
            String::from_utf8(plain.out).expect("text"),
            "#1 \n#1 sha256:abc 2.00MB / 10.00MB 5.2s\n#1 sha256:abc 9.00MB / 10.00MB 10.3s\n\
             #1 sha256:abc 10.00MB / 10.00MB 11.0s done\n"
        );
    }
}

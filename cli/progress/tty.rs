//! The live view: finished steps scroll away above, running ones stay at the bottom with their last output lines.

use std::collections::{HashMap, VecDeque};
use std::io::{Stderr, Write};
use std::time::{Duration, SystemTime};

use cbs_solver::llb::VertexDigest;
use cbs_solver::{Event, Outcome, Status};

use super::{Lines, Renderer, human_bytes};

/// Output lines shown below a running step.
const TAIL: usize = 6;
/// Running steps shown at once.
const ROWS: usize = 12;

struct Shown {
    name: String,
    started: Option<SystemTime>,
    lines: Lines,
    tail: VecDeque<String>,
    statuses: Vec<Status>,
}

/// The renderer.
pub(super) struct Tty {
    out: Stderr,
    vertices: HashMap<VertexDigest, Shown>,
    running: Vec<VertexDigest>,
    total: usize,
    ended: usize,
    cached: usize,
    is_over: bool,
    begun: SystemTime,
    /// Lines of the live part now on screen.
    drawn: usize,
    colour: bool,
}

impl Tty {
    pub(super) fn new() -> Self {
        Self {
            out: std::io::stderr(),
            vertices: HashMap::new(),
            running: Vec::new(),
            total: 0,
            ended: 0,
            cached: 0,
            is_over: false,
            begun: SystemTime::now(),
            drawn: 0,
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Width and height of the terminal, each time anew: it may have been resized.
    fn size(&self) -> (usize, usize) {
        match rustix::termios::tcgetwinsize(&self.out) {
            Ok(size) if size.ws_col > 0 => (usize::from(size.ws_col), usize::from(size.ws_row).max(4)),
            _ => (80, 24),
        }
    }

    /// Replaces the live part, printing `above` for good first.
    fn draw(&mut self, above: &[String]) {
        let (width, height) = self.size();
        let mut frame = String::new();
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A", self.drawn));
        }
        frame.push_str("\r\x1b[J");
        for line in above {
            frame.push_str(&fit(line, width));
            frame.push('\n');
        }
        let live = self.live(width, height);
        self.drawn = live.len();
        for line in live {
            frame.push_str(&line);
            frame.push('\n');
        }
        // A terminal that went away is no reason to stop a build.
        self.out
            .write_all(frame.as_bytes())
            .and_then(|()| self.out.flush())
            .unwrap_or_default();
    }

    fn live(&self, width: usize, height: usize) -> Vec<String> {
        let now = SystemTime::now();
        let elapsed = now.duration_since(self.begun).unwrap_or_default();
        let cached = if self.cached > 0 {
            format!(", {} cached", self.cached)
        } else {
            String::new()
        };
        let head = format!(
            "[+] Building {:.1}s ({}/{}{cached}){}",
            elapsed.as_secs_f64(),
            self.ended,
            self.total,
            if self.is_over { " FINISHED" } else { "" }
        );
        let mut lines = vec![self.paint("1", &fit(&head, width))];
        let room = height.saturating_sub(3);
        for vertex in self.running.iter().take(ROWS) {
            let Some(shown) = self.vertices.get(vertex) else {
                continue;
            };
            let since = shown
                .started
                .and_then(|started| now.duration_since(started).ok())
                .unwrap_or_default();
            lines.push(self.paint("36", &row(" => ", &shown.name, since, width)));
            for status in &shown.statuses {
                lines.push(fit(&format!(" => => {}", transfer(status, now)), width));
            }
            for line in &shown.tail {
                lines.push(self.paint("2", &fit(&format!(" => => # {line}"), width)));
            }
        }
        if self.running.len() > ROWS {
            lines.push(fit(&format!(" => and {} more", self.running.len() - ROWS), width));
        }
        lines.truncate(room);
        lines
    }
}

impl Renderer for Tty {
    fn event(&mut self, event: Event) {
        match event {
            Event::Added(added) => {
                self.total += 1;
                let shown = Shown {
                    name: added.name.replace('\n', " "),
                    started: None,
                    lines: Lines::default(),
                    tail: VecDeque::new(),
                    statuses: Vec::new(),
                };
                self.vertices.insert(added.vertex, shown);
            }
            Event::Started { vertex, time } => {
                if let Some(shown) = self.vertices.get_mut(&vertex) {
                    shown.started.get_or_insert(time);
                    if !self.running.contains(&vertex) {
                        self.running.push(vertex);
                    }
                }
            }
            Event::Ended { vertex, time, outcome } => {
                self.running.retain(|running| *running != vertex);
                self.ended += 1;
                self.cached += usize::from(outcome == Outcome::Cached);
                let (width, _) = self.size();
                let Some(shown) = self.vertices.get_mut(&vertex) else {
                    return;
                };
                let since = shown
                    .started
                    .and_then(|started| time.duration_since(started).ok())
                    .unwrap_or_default();
                let name = shown.name.clone();
                let tail: Vec<String> = shown.tail.drain(..).collect();
                let above = match outcome {
                    Outcome::Ran => vec![self.paint("34", &row(" => ", &name, since, width))],
                    Outcome::Cached => vec![self.paint("34", &row(" => CACHED ", &name, since, width))],
                    Outcome::Cancelled => vec![self.paint("33", &row(" => CANCELED ", &name, since, width))],
                    Outcome::Failed(_) => {
                        let mut lines = vec![self.paint("31", &row(" => ERROR ", &name, since, width))];
                        lines.extend(tail.iter().map(|line| format!(" => => # {line}")));
                        lines
                    }
                };
                self.draw(&above);
            }
            Event::Status(status) => {
                if let Some(shown) = self.vertices.get_mut(&status.vertex) {
                    // In its place, so that rows do not change places with each piece that arrives.
                    let at = shown.statuses.iter().position(|known| known.id == status.id);
                    match (at, status.completed) {
                        (Some(at), None) => shown.statuses[at] = status,
                        (Some(at), Some(_)) => drop(shown.statuses.remove(at)),
                        (None, None) => shown.statuses.push(status),
                        (None, Some(_)) => {}
                    }
                }
            }
            Event::Log {
                vertex, stream, bytes, ..
            } => {
                if let Some(shown) = self.vertices.get_mut(&vertex) {
                    for line in shown.lines.push(stream, &bytes) {
                        if shown.tail.len() == TAIL {
                            shown.tail.pop_front();
                        }
                        shown.tail.push_back(line);
                    }
                }
            }
            Event::Warning(warning) => {
                let line = self.paint("33", &format!(" WARNING: {}", warning.short));
                self.draw(&[line]);
            }
            Event::LogDropped { .. } => {}
        }
    }

    fn tick(&mut self) {
        self.draw(&[]);
    }

    fn interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(100))
    }

    fn finish(&mut self) {
        self.running.clear();
        self.is_over = true;
        self.draw(&[]);
    }
}

/// How far something is that is counted in bytes: `sha256:… [=====>    ] 5.00MB / 10.00MB 2.50MB/s`.
fn transfer(status: &Status, now: SystemTime) -> String {
    const BAR: u64 = 20;
    let Status { id, current, total, .. } = status;
    if *current == 0 {
        return id.clone();
    }
    let seconds = now.duration_since(status.started).unwrap_or_default().as_secs_f64();
    let rate = if seconds >= 0.5 {
        format!(" {}/s", human_bytes((*current as f64 / seconds) as u64))
    } else {
        String::new()
    };
    // A digest says enough with its first digits, and leaves room for the rest.
    let id: String = match id.split_once("sha256:") {
        Some((before, hex)) if hex.len() > 12 => format!("{before}sha256:{}", hex.chars().take(12).collect::<String>()),
        _ => id.clone(),
    };
    if *total == 0 {
        return format!("{id} {}{rate}", human_bytes(*current));
    }
    let full = usize::try_from(current.min(total).saturating_mul(BAR) / total).unwrap_or(0);
    let bar: String = (0..BAR as usize)
        .map(|at| match at.cmp(&full) {
            std::cmp::Ordering::Less => '=',
            std::cmp::Ordering::Equal => '>',
            std::cmp::Ordering::Greater => ' ',
        })
        .collect();
    format!("{id} [{bar}] {} / {}{rate}", human_bytes(*current), human_bytes(*total))
}

/// Cuts a line to the width; escape sequences count nothing.
fn fit(line: &str, width: usize) -> String {
    let mut text = String::new();
    let (mut used, mut escape) = (0, false);
    for c in line.chars() {
        if escape {
            escape = !c.is_ascii_alphabetic();
        } else if c == '\x1b' {
            escape = true;
        } else if used + 1 >= width {
            continue;
        } else {
            used += 1;
        }
        text.push(c);
    }
    text
}

/// `prefix name …            1.2s`, the time at the right edge.
fn row(prefix: &str, name: &str, since: Duration, width: usize) -> String {
    let time = format!("{:.1}s", since.as_secs_f64());
    let room = width.saturating_sub(prefix.len() + time.len() + 2);
    let name: String = name.chars().take(room).collect();
    format!("{prefix}{name:<room$} {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_to_the_width() {
        assert_eq!(
            row(" => ", "RUN x", Duration::from_millis(1200), 20),
            " => RUN x      1.2s"
        );
        assert_eq!(fit("\x1b[1mabcdef\x1b[0m", 4), "\x1b[1mabc\x1b[0m");
    }

    #[test]
    fn transfers_have_a_bar_and_a_rate() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let status = Status {
            vertex: VertexDigest::of(b"a"),
            id: format!("pulling sha256:{}", "ab".repeat(32)),
            current: 5_000_000,
            total: 10_000_000,
            started: at(0),
            completed: None,
        };
        assert_eq!(
            transfer(&status, at(2_000)),
            "pulling sha256:abababababab [==========>         ] 5.00MB / 10.00MB 2.50MB/s"
        );
        let (total, unknown) = (0, at(100));
        assert_eq!(
            transfer(&Status { total, ..status }, unknown),
            "pulling sha256:abababababab 5.00MB"
        );
    }
}

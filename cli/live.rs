//! The output of a running build, for `cbs log --follow` of another process.
//!
//! ```text
//! work/LEASE/names          gc roots of the targets being built, one a line
//! work/LEASE/live.NUMBER    { kind (one byte), vertex (as text), newline, length (4 bytes, little endian), payload }*
//! ```
//! The display writes it as it shows things. A reader that finds the folder gone or without its owner has seen the end.
//!
//! What steps print is kept whole elsewhere; here are the last parts of it, so that a step that prints much does not fill
//! the disk twice, nor have it written twice: parts that are removed soon seldom reach the disk. Each part begins with what
//! was said in those before, output excepted, in kinds of their own, for readers who have missed them.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cbs_solver::llb::VertexDigest;
use cbs_solver::{Event, Outcome, Stream};

/// The names of the files.
const NAMES: &str = "names";
const LIVE: &str = "live.";
/// Bytes of a part, more or less, and how many there are at most.
const PART: u64 = 8 << 20;
const PARTS: u64 = 4;
/// The longest payload a reader accepts.
const LONGEST: usize = 2 << 20;
/// How often a reader looks for more.
const PAUSE: Duration = Duration::from_millis(50);

/// What a reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A step has this name.
    Named(VertexDigest, String),
    /// A step printed.
    Printed(VertexDigest, Stream, Vec<u8>),
    /// A step ended; with what happened if it failed.
    Ended(VertexDigest, Option<String>),
    /// Output was left out here.
    Missed,
}

impl News {
    fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Added(added) => Self::Named(added.vertex, added.name.clone()),
            Event::Log {
                vertex, stream, bytes, ..
            } => Self::Printed(*vertex, *stream, bytes.to_vec()),
            Event::Ended { vertex, outcome, .. } => Self::Ended(
                *vertex,
                match outcome {
                    Outcome::Failed(why) => Some(why.clone()),
                    Outcome::Ran | Outcome::Cached | Outcome::Cancelled => None,
                },
            ),
            Event::LogDropped { .. } => Self::Missed,
            Event::Started { .. } | Event::Status(_) | Event::Warning(_) => return None,
        })
    }

    fn encode(&self, said: Said, out: &mut impl Write) -> io::Result<()> {
        let nobody = VertexDigest::of(b"");
        let (kind, vertex, payload): (u8, &VertexDigest, &[u8]) = match self {
            Self::Named(vertex, name) => (b'n', vertex, name.as_bytes()),
            Self::Printed(vertex, Stream::Stdout, bytes) => (b'1', vertex, bytes),
            Self::Printed(vertex, Stream::Stderr, bytes) => (b'2', vertex, bytes),
            Self::Ended(vertex, None) => (b'e', vertex, b""),
            Self::Ended(vertex, Some(why)) => (b'f', vertex, why.as_bytes()),
            Self::Missed => (b'x', &nobody, b""),
        };
        let payload = &payload[..payload.len().min(LONGEST)];
        out.write_all(&[match said {
            Said::Now => kind,
            Said::Before => kind.to_ascii_uppercase(),
        }])?;
        out.write_all(vertex.to_string().as_bytes())?;
        out.write_all(b"\n")?;
        out.write_all(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        out.write_all(payload)
    }
}

/// Says which targets a session builds.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn announce<'n>(scratch: &Path, names: impl Iterator<Item = &'n str>) -> io::Result<()> {
    let text: String = names.map(|name| format!("{name}\n")).collect();
    std::fs::write(scratch.join(NAMES), text)
}

/// Whether news was said in an earlier part, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Now,
    Before,
}

/// The writing side.
pub(crate) struct LiveLog {
    scratch: PathBuf,
    out: BufWriter<File>,
    /// The part being written, and how much output is in it.
    number: u64,
    written: u64,
    /// What the next part begins with.
    said: Vec<News>,
}

impl LiveLog {
    /// Begins the live log of a session whose scratch this is.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn begin(scratch: &Path) -> io::Result<Self> {
        Ok(Self {
            scratch: scratch.to_owned(),
            out: writer(scratch, 0)?,
            number: 0,
            written: 0,
            said: Vec::new(),
        })
    }

    /// Takes an event. A log that cannot be written is left as it is: it only repeats what is kept.
    pub(crate) fn event(&mut self, event: &Event) {
        let Some(news) = News::of(event) else { return };
        news.encode(Said::Now, &mut self.out).unwrap_or_default();
        match news {
            News::Printed(_, _, bytes) => {
                self.written += bytes.len() as u64;
                if self.written >= PART {
                    self.next_part().unwrap_or_default();
                }
            }
            News::Missed => {}
            // What is said twice, as of a source that is pinned and then fetched, counts once.
            other if self.said.last() != Some(&other) => self.said.push(other),
            _ => {}
        }
    }

    fn next_part(&mut self) -> io::Result<()> {
        self.written = 0;
        // Whole before the next one is there: that is how readers know.
        self.out.flush()?;
        self.out = writer(&self.scratch, self.number + 1)?;
        self.number += 1;
        for news in &self.said {
            news.encode(Said::Before, &mut self.out)?;
        }
        match self.number.checked_sub(PARTS) {
            Some(old) => std::fs::remove_file(part(&self.scratch, old)),
            None => Ok(()),
        }
    }

    /// Lets readers see what was taken so far.
    pub(crate) fn flush(&mut self) {
        self.out.flush().unwrap_or_default();
    }
}

fn part(scratch: &Path, number: u64) -> PathBuf {
    scratch.join(format!("{LIVE}{number}"))
}

fn writer(scratch: &Path, number: u64) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(64 << 10, File::create(part(scratch, number))?))
}

/// The reading side.
pub(crate) struct Follower {
    scratch: PathBuf,
    /// Parts that were there when it was last looked, so that they can be read when they are removed.
    parts: VecDeque<Part>,
    /// The number of the last of them.
    last: u64,
    buffer: Vec<u8>,
    /// Names and ends that were told.
    told: HashMap<VertexDigest, Told>,
}

struct Part {
    file: File,
    /// The one before it was removed unread.
    follows_gap: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    name: bool,
    end: bool,
}

impl Follower {
    /// Finds the build that `is_wanted` by the name of a target.
    pub(crate) fn find(work: &Path, is_wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let folders = std::fs::read_dir(work).ok()?.flatten().map(|entry| entry.path());
        for scratch in folders {
            let names = std::fs::read_to_string(scratch.join(NAMES)).unwrap_or_default();
            if names.lines().any(&is_wanted)
                && is_alive(&scratch)
                && let Some((last, file)) = first_part(&scratch, 0)
            {
                let follows_gap = last > 0;
                return Some(Self {
                    scratch,
                    parts: VecDeque::from([Part { file, follows_gap }]),
                    last,
                    buffer: Vec::new(),
                    told: HashMap::new(),
                });
            }
        }
        None
    }

    /// What comes next; waits for it. `None` when the build is over.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub(crate) fn next(&mut self) -> io::Result<Option<News>> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            if let Some((said, news)) = self.take()? {
                if self.is_news(said, &news) {
                    return Ok(Some(news));
                }
                continue;
            }
            // Asked before reading: what was written before the end is read after it.
            let is_over = !is_alive(&self.scratch);
            self.look_for_parts();
            let Some(part) = self.parts.front_mut() else {
                return Ok(None);
            };
            if std::mem::take(&mut part.follows_gap) {
                return Ok(Some(News::Missed));
            }
            match part.file.read(&mut chunk)? {
                0 if self.parts.len() > 1 => {
                    // It was whole before the next one was there.
                    self.parts.pop_front();
                    self.buffer.clear();
                }
                0 if is_over => return Ok(None),
                0 => std::thread::sleep(PAUSE),
                length => self.buffer.extend_from_slice(&chunk[..length]),
            }
        }
    }

    fn look_for_parts(&mut self) {
        while let Some((number, file)) = first_part(&self.scratch, self.last + 1) {
            let follows_gap = number > self.last + 1;
            self.last = number;
            self.parts.push_back(Part { file, follows_gap });
        }
    }

    /// Whether something has not been told.
    fn is_news(&mut self, said: Said, news: &News) -> bool {
        let (vertex, named) = match news {
            News::Named(vertex, _) => (vertex, true),
            News::Ended(vertex, _) => (vertex, false),
            News::Printed(..) | News::Missed => return true,
        };
        let told = self.told.entry(*vertex).or_default();
        let was_told = std::mem::replace(if named { &mut told.name } else { &mut told.end }, true);
        said == Said::Now || !was_told
    }

    /// A whole record of the buffer.
    fn take(&mut self) -> io::Result<Option<(Said, News)>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the live log is damaged");
        let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&self.buffer[..end])
            .map_err(|_| damaged())?
            .to_owned();
        let Some(length) = self.buffer.get(end + 1..end + 5) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(length.try_into().map_err(|_| damaged())?) as usize;
        if length > LONGEST {
            return Err(damaged());
        }
        let Some(payload) = self.buffer.get(end + 5..end + 5 + length) else {
            return Ok(None);
        };
        let (payload, kind) = (payload.to_vec(), head.as_bytes().first().copied().unwrap_or(0));
        self.buffer.drain(..end + 5 + length);
        let vertex: VertexDigest = head.get(1..).and_then(|text| text.parse().ok()).ok_or_else(damaged)?;
        let text = || String::from_utf8_lossy(&payload).into_owned();
        let said = if kind.is_ascii_uppercase() {
            Said::Before
        } else {
            Said::Now
        };
        let news = match kind.to_ascii_lowercase() {
            b'n' => News::Named(vertex, text()),
            b'1' => News::Printed(vertex, Stream::Stdout, payload),
            b'2' => News::Printed(vertex, Stream::Stderr, payload),
            b'e' => News::Ended(vertex, None),
            b'f' => News::Ended(vertex, Some(text())),
            b'x' => News::Missed,
            _ => return Err(damaged()),
        };
        Ok(Some((said, news)))
    }
}

/// The first part from this number on that is there. One may be removed while it is being opened.
fn first_part(scratch: &Path, least: u64) -> Option<(u64, File)> {
    if let Ok(file) = File::open(part(scratch, least)) {
        return Some((least, file));
    }
    let names = std::fs::read_dir(scratch)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name());
    let numbers = names.filter_map(|name| name.to_str()?.strip_prefix(LIVE)?.parse::<u64>().ok());
    let mut numbers: Vec<u64> = numbers.filter(|&number| number >= least).collect();
    numbers.sort_unstable();
    numbers
        .into_iter()
        .find_map(|number| Some((number, File::open(part(scratch, number)).ok()?)))
}

/// Whether the process that works in a scratch folder lives: it keeps the folder locked.
fn is_alive(scratch: &Path) -> bool {
    let Ok(folder) = File::open(scratch) else {
        return false;
    };
    // A lock taken here for a moment makes whoever would remove the folder come back later.
    let taken = rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockShared);
    taken.is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_until_the_folder_is_gone() {
        let work = tempfile::tempdir().expect("tempdir");
        let scratch = work.path().join("1");
        std::fs::create_dir(&scratch).expect("mkdir");
        announce(&scratch, ["/src#app"].into_iter()).expect("announce");
        assert!(Follower::find(work.path(), |_| true).is_none(), "nobody works there");
        let owner = File::open(&scratch).expect("open");
        rustix::fs::flock(&owner, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("lock");
        let mut live = LiveLog::begin(&scratch).expect("begin");
        let vertex = VertexDigest::of(b"v");
        assert!(Follower::find(work.path(), |name| name == "/other").is_none());
        let mut follower = Follower::find(work.path(), |name| name == "/src#app").expect("found");
        live.event(&Event::Log {
            vertex,
            time: std::time::SystemTime::UNIX_EPOCH,
            stream: Stream::Stderr,
            bytes: vec![0, 255, b'\n'].into(),
        });
        live.flush();
        let read = follower.next().expect("read");
        assert_eq!(read, Some(News::Printed(vertex, Stream::Stderr, vec![0, 255, b'\n'])));
        live.event(&Event::Ended {
            vertex,
            time: std::time::SystemTime::UNIX_EPOCH,
            outcome: Outcome::Failed("no".into()),
        });
        live.flush();
        std::fs::remove_dir_all(&scratch).expect("remove");
        drop(owner);
        assert_eq!(
            follower.next().expect("read"),
            Some(News::Ended(vertex, Some("no".into())))
        );
        assert_eq!(follower.next().expect("read"), None);
    }

    #[test]
    fn who_comes_late_or_is_slow_misses_output_and_nothing_else() {
        let work = tempfile::tempdir().expect("tempdir");
        let scratch = work.path().join("1");
        std::fs::create_dir(&scratch).expect("mkdir");
        announce(&scratch, ["app"].into_iter()).expect("announce");
        let owner = File::open(&scratch).expect("open");
        rustix::fs::flock(&owner, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("lock");
        let mut live = LiveLog::begin(&scratch).expect("begin");
        let (vertex, time) = (VertexDigest::of(b"v"), std::time::SystemTime::UNIX_EPOCH);
        let mut early = Follower::find(work.path(), |_| true).expect("found");
        live.event(&Event::Added(cbs_solver::VertexAdded {
            vertex,
            name: "RUN yes".into(),
            kind: cbs_solver::OpKind::Exec,
            platform: None,
            inputs: vec![],
            group: None,
        }));
        let piece: std::sync::Arc<[u8]> = vec![b'y'; 1 << 20].into();
        let print = |live: &mut LiveLog, pieces: u64| {
            for _ in 0..pieces {
                let (stream, bytes) = (Stream::Stdout, piece.clone());
                live.event(&Event::Log {
                    vertex,
                    time,
                    stream,
                    bytes,
                });
            }
            live.flush();
        };
        print(&mut live, 1);
        let named = News::Named(vertex, "RUN yes".into());
        assert_eq!(early.next().expect("read"), Some(named.clone()));
        assert!(matches!(early.next().expect("read"), Some(News::Printed(..))));
        let parts = (PARTS + 3) * (PART >> 20);
        print(&mut live, parts);
        live.event(&Event::Ended {
            vertex,
            time,
            outcome: Outcome::Failed("no".into()),
        });
        live.flush();
        let kept = std::fs::read_dir(&scratch).expect("list").count() as u64;
        assert_eq!(kept, PARTS + 1, "the parts and the names");
        let mut late = Follower::find(work.path(), |_| true).expect("found");
        late.look_for_parts();
        early.look_for_parts();
        std::fs::remove_dir_all(&scratch).expect("remove");
        drop(owner);
        for (mut follower, is_late) in [(early, false), (late, true)] {
            let mut seen = Vec::new();
            while let Some(news) = follower.next().expect("read") {
                seen.push(news);
            }
            let printed = seen.iter().filter(|news| matches!(news, News::Printed(..))).count() as u64;
            assert!((1..parts).contains(&printed), "{printed}");
            let missed = seen.iter().position(|news| *news == News::Missed);
            assert_eq!(missed.map(|place| place == 0), Some(is_late));
            assert_eq!(seen.last(), Some(&News::Ended(vertex, Some("no".into()))));
            assert!(seen.iter().filter(|news| **news == named).count() <= 1);
        }
    }
}

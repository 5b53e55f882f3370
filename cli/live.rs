//! The output of a running build, for `cbs log --follow` of another process.
//!
//! ```text
//! work/LEASE/names          gc roots of the targets being built, one a line
//! work/LEASE/live           { kind (one byte), vertex (as text), newline, length (4 bytes, little endian), payload }*
//! ```
//! The display writes it as it shows things. A reader that finds the folder gone or without its owner has seen the end.
//! What steps print is kept whole elsewhere; here it ends at a limit, so that a step that prints for ever does not fill
//! the disk twice.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cbs_solver::llb::VertexDigest;
use cbs_solver::{Event, Outcome, Stream};

/// The names of the files.
const NAMES: &str = "names";
const LIVE: &str = "live";
/// Bytes of output that are written.
const LIMIT: u64 = 256 << 20;
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
    /// From here on output is left out.
    Full,
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
            Event::Started { .. } | Event::Status(_) | Event::Warning(_) | Event::LogDropped { .. } => return None,
        })
    }

    fn encode(&self, out: &mut impl Write) -> io::Result<()> {
        let nobody = VertexDigest::of(b"");
        let (kind, vertex, payload): (u8, &VertexDigest, &[u8]) = match self {
            Self::Named(vertex, name) => (b'n', vertex, name.as_bytes()),
            Self::Printed(vertex, Stream::Stdout, bytes) => (b'1', vertex, bytes),
            Self::Printed(vertex, Stream::Stderr, bytes) => (b'2', vertex, bytes),
            Self::Ended(vertex, None) => (b'e', vertex, b""),
            Self::Ended(vertex, Some(why)) => (b'f', vertex, why.as_bytes()),
            Self::Full => (b'x', &nobody, b""),
        };
        let payload = &payload[..payload.len().min(LONGEST)];
        out.write_all(&[kind])?;
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

/// The writing side.
pub(crate) struct LiveLog {
    out: BufWriter<File>,
    written: u64,
    is_full: bool,
}

impl LiveLog {
    /// Begins the live log of a session whose scratch this is.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn begin(scratch: &Path) -> io::Result<Self> {
        Ok(Self {
            out: BufWriter::with_capacity(64 << 10, File::create(scratch.join(LIVE))?),
            written: 0,
            is_full: false,
        })
    }

    /// Takes an event. A log that cannot be written is left as it is: it only repeats what is kept.
    pub(crate) fn event(&mut self, event: &Event) {
        let Some(mut news) = News::of(event) else { return };
        if let News::Printed(_, _, bytes) = &news {
            if self.is_full {
                return;
            }
            self.written += bytes.len() as u64;
            if self.written > LIMIT {
                self.is_full = true;
                news = News::Full;
            }
        }
        news.encode(&mut self.out).unwrap_or_default();
    }

    /// Lets readers see what was taken so far.
    pub(crate) fn flush(&mut self) {
        self.out.flush().unwrap_or_default();
    }
}

/// The reading side.
pub(crate) struct Follower {
    scratch: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Follower {
    /// Finds the build that `is_wanted` by the name of a target.
    pub(crate) fn find(work: &Path, is_wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let folders = std::fs::read_dir(work).ok()?.flatten().map(|entry| entry.path());
        for scratch in folders {
            let names = std::fs::read_to_string(scratch.join(NAMES)).unwrap_or_default();
            if names.lines().any(&is_wanted)
                && is_alive(&scratch)
                && let Ok(file) = File::open(scratch.join(LIVE))
            {
                return Some(Self {
                    scratch,
                    file,
                    buffer: Vec::new(),
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
        loop {
            if let Some(news) = self.take()? {
                return Ok(Some(news));
            }
            let mut chunk = vec![0; 64 << 10];
            // Asked before reading: what was written before the end is read after it.
            let is_over = !is_alive(&self.scratch);
            match self.file.read(&mut chunk)? {
                0 if is_over => return Ok(None),
                0 => std::thread::sleep(PAUSE),
                length => self.buffer.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// A whole record of the buffer.
    fn take(&mut self) -> io::Result<Option<News>> {
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
        let (payload, kind) = (payload.to_vec(), head.as_bytes().first().copied());
        self.buffer.drain(..end + 5 + length);
        let vertex: VertexDigest = head.get(1..).and_then(|text| text.parse().ok()).ok_or_else(damaged)?;
        let text = || String::from_utf8_lossy(&payload).into_owned();
        Ok(Some(match kind {
            Some(b'n') => News::Named(vertex, text()),
            Some(b'1') => News::Printed(vertex, Stream::Stdout, payload),
            Some(b'2') => News::Printed(vertex, Stream::Stderr, payload),
            Some(b'e') => News::Ended(vertex, None),
            Some(b'f') => News::Ended(vertex, Some(text())),
            Some(b'x') => News::Full,
            _ => return Err(damaged()),
        }))
    }
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
}

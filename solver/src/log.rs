//! What a step prints: sent on as events at once, and kept whole and compressed for the store.
//!
//! ```text
//! zstd( "cbslog1\n"  varint start in ms since 1970  { varint ms since start, fd byte, varint length, bytes }* )
//! ```
//! A log stays in memory while its compressed form is small and moves to an unlinked file when it grows.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::events::{Clock, Event, EventSender, Stream, SystemClock};
use crate::llb::VertexDigest;

const MAGIC: &[u8; 8] = b"cbslog1\n";
/// Compressed bytes kept in memory.
const IN_MEMORY: usize = 1 << 20;
/// Bytes of output kept for a failure's message.
const TAIL: usize = 32 << 10;
/// Longest record a reader accepts; writers split longer output.
const MAX_RECORD: usize = 1 << 20;

/// Takes what a step prints; cloning is cheap. Safe to use from any thread; a call costs a copy and some compression.
#[derive(Clone, Debug)]
pub struct LogSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    vertex: VertexDigest,
    events: EventSender,
    clock: Arc<dyn Clock>,
    started: SystemTime,
    spill: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    encoder: Option<zstd::stream::write::Encoder<'static, Spill>>,
    tail: VecDeque<u8>,
    /// The first failure to keep the log; it ends the keeping, not the step.
    broken: Option<io::Error>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("tail", &self.tail.len())
            .finish_non_exhaustive()
    }
}

impl LogSink {
    /// The log of `vertex`. A long log spills into an unlinked file in the folder `spill`; without one it stays in
    /// memory.
    pub fn new(vertex: VertexDigest, events: EventSender, clock: Arc<dyn Clock>, spill: Option<PathBuf>) -> Self {
        let started = clock.now();
        Self(Arc::new(Inner {
            vertex,
            events,
            clock,
            started,
            spill,
            state: Mutex::default(),
        }))
    }

    /// A log that nobody watches, for tests of executors; [`LogSink::tail`] still works.
    pub fn discard() -> Self {
        Self::new(
            VertexDigest::of(b""),
            EventSender::discard(),
            Arc::new(SystemClock),
            None,
        )
    }

    /// Takes output as it came; a chunk need not be a line.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let time = self.0.clock.now();
        for chunk in bytes.chunks(MAX_RECORD) {
            self.0.events.send(Event::Log {
                vertex: self.0.vertex,
                time,
                stream,
                bytes: chunk.into(),
            });
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.broken.is_none()
                && let Err(err) = self.0.record(&mut state, time, stream, chunk)
            {
                state.broken = Some(err);
            }
            let keep = &chunk[chunk.len().saturating_sub(TAIL)..];
            state.tail.extend(keep);
            let surplus = state.tail.len().saturating_sub(TAIL);
            state.tail.drain(..surplus);
        }
    }

    /// The last lines of both streams, at most `lines` of them.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = state.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        let first = all.len().saturating_sub(lines);
        all[first..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Ends the log and gives its compressed bytes to read; `None` when nothing was printed. Output that comes later
    /// begins another log. Blocking.
    ///
    /// # Errors
    /// [`io::Error`] when the log could not be kept; the step's result is as good without it.
    pub fn finish(&self) -> io::Result<Option<Box<dyn Read + Send>>> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(err) = state.broken.take() {
            state.encoder = None;
            return Err(err);
        }
        let Some(encoder) = state.encoder.take() else {
            return Ok(None);
        };
        drop(state);
        Ok(Some(match encoder.finish()?.place {
            Place::Memory(bytes) => Box::new(io::Cursor::new(bytes)),
            Place::File(mut file) => {
                file.rewind()?;
                Box::new(file)
            }
        }))
    }
}

impl Inner {
    fn record(&self, state: &mut State, time: SystemTime, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let encoder = match &mut state.encoder {
            Some(encoder) => encoder,
            empty => {
                let spill = Spill {
                    folder: self.spill.clone(),
                    place: Place::Memory(Vec::new()),
                };
                let mut encoder = zstd::stream::write::Encoder::new(spill, 3)?;
                encoder.write_all(MAGIC)?;
                let start = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                put_varint(&mut encoder, start.as_millis() as u64)?;
                empty.insert(encoder)
            }
        };
        let since = time.duration_since(self.started).unwrap_or_default();
        put_varint(encoder, since.as_millis() as u64)?;
        encoder.write_all(&[stream.number()])?;
        put_varint(encoder, bytes.len() as u64)?;
        encoder.write_all(bytes)
    }
}

#[derive(Debug)]
struct Spill {
    folder: Option<PathBuf>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    File(File),
}

impl Write for Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let (Place::Memory(kept), Some(folder)) = (&self.place, &self.folder)
            && kept.len() + bytes.len() > IN_MEMORY
        {
            let mut file = unlinked_file(folder)?;
            file.write_all(kept)?;
            self.place = Place::File(file);
        }
        match &mut self.place {
            Place::Memory(kept) => kept.write(bytes),
            Place::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unlinked_file(folder: &Path) -> io::Result<File> {
    let mut number = 0_u64;
    loop {
        let path = folder.join(format!("log-{number}"));
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            // Another step's file in the moment before it is unlinked.
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(err) => return Err(err),
        }
    }
}

fn put_varint(out: &mut impl Write, mut value: u64) -> io::Result<()> {
    while value >= 0x80 {
        out.write_all(&[(value as u8 & 0x7f) | 0x80])?;
        value >>= 7;
    }
    out.write_all(&[value as u8])
}

/// One piece of output of a stored log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// When it was printed.
    pub time: SystemTime,
    /// Where to.
    pub stream: Stream,
    /// What.
    pub bytes: Vec<u8>,
}

/// Reads what [`LogSink::finish`] gave.
pub struct LogReader<R: Read> {
    input: io::BufReader<zstd::stream::read::Decoder<'static, io::BufReader<R>>>,
    started: SystemTime,
    ended: bool,
}

impl<R: Read> LogReader<R> {
    /// Begins to read a compressed log.
    ///
    /// # Errors
    /// [`io::Error`] when reading fails or the bytes are no log.
    pub fn new(compressed: R) -> io::Result<Self> {
        let mut input = io::BufReader::new(zstd::stream::read::Decoder::new(compressed)?);
        let mut magic = [0; 8];
        input.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(damaged("it is no log"));
        }
        let millis = get_varint(&mut input)?.ok_or_else(|| damaged("it ends early"))?;
        let started = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(millis))
            .ok_or_else(|| damaged("its start is out of range"))?;
        Ok(Self {
            input,
            started,
            ended: false,
        })
    }

    fn record(&mut self) -> io::Result<Option<LogRecord>> {
        let Some(millis) = get_varint(&mut self.input)? else {
            return Ok(None);
        };
        let mut stream = [0];
        self.input.read_exact(&mut stream)?;
        let length = get_varint(&mut self.input)?.ok_or_else(|| damaged("it ends early"))?;
        let length = usize::try_from(length).ok().filter(|&length| length <= MAX_RECORD);
        let mut bytes = vec![0; length.ok_or_else(|| damaged("a record is too long"))?];
        self.input.read_exact(&mut bytes)?;
        let time = self.started.checked_add(Duration::from_millis(millis));
        Ok(Some(LogRecord {
            time: time.ok_or_else(|| damaged("a time is out of range"))?,
            stream: match stream[0] {
                1 => Stream::Stdout,
                2 => Stream::Stderr,
                _ => return Err(damaged("a stream is unknown")),
            },
            bytes,
        }))
    }
}

impl<R: Read> Iterator for LogReader<R> {
    type Item = io::Result<LogRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.record().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged log: {why}"))
}

/// Reads a number; `None` at the end of input.
fn get_varint(input: &mut impl Read) -> io::Result<Option<u64>> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        if input.read(&mut byte)? == 0 {
            return if shift == 0 {
                Ok(None)
            } else {
                Err(damaged("it ends early"))
            };
        }
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(damaged("a number is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_can_be_read_again() {
        let log = LogSink::discard();
        assert!(log.finish().expect("finish").is_none(), "nothing was printed");
        log.write(Stream::Stdout, b"one\ntwo");
        log.write(Stream::Stderr, b"\nthree\n");
        assert_eq!(log.tail(2), ["two", "three"]);
        let records: Vec<_> = LogReader::new(log.finish().expect("finish").expect("a log"))
            .expect("open")
            .map(|record| record.expect("record"))
            .map(|record| (record.stream, record.bytes))
            .collect();
        let expected = [
            (Stream::Stdout, b"one\ntwo".to_vec()),
            (Stream::Stderr, b"\nthree\n".to_vec()),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn a_long_log_spills_and_leaves_no_file() {
        let folder = tempfile::tempdir().expect("tempdir");
        let clock = Arc::new(SystemClock);
        let vertex = VertexDigest::of(b"v");
        let log = LogSink::new(vertex, EventSender::discard(), clock, Some(folder.path().to_owned()));
        // Bytes that do not compress.
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(3 << 20)
        .collect();
        log.write(Stream::Stdout, &noise);
        let read = LogReader::new(log.finish().expect("finish").expect("a log")).expect("open");
        let bytes: Vec<u8> = read.flat_map(|record| record.expect("record").bytes).collect();
        assert!(bytes == noise);
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn damaged_logs_are_errors() {
        for bytes in [
            &b""[..],
            b"nonsense",
            &zstd::encode_all(&b"cbslog1\n\xff"[..], 3).expect("zstd"),
        ] {
            let read = LogReader::new(bytes).and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
            assert!(read.is_err(), "{bytes:?}");
        }
    }
}

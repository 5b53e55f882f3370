//! Waits for a container: passes its output on, obeys a cancellation, and notices its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::cancel::CancelHandle;
use super::report::{OutputSink, OutputStream};
use super::sys::{Child, Ended};

/// How often a child without open streams is looked at for tracees.
const TRACEE_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// How long output may gather.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 300_000,
};

/// As much as is passed on at once.
const BUFFER: usize = 256 * 1024;

/// Read ends of the container's output, with no writer left in this process. They do not block.
pub(super) struct Output {
    /// Standard output.
    pub(super) stdout: OwnedFd,
    /// Standard error.
    pub(super) stderr: OwnedFd,
}

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The container ended of itself.
    Ended(Ended),
    /// It was killed because of a cancellation.
    Cancelled,
}

/// Waits until the container has ended and all its output has been passed on.
///
/// A process that pid 1 leaves behind does not hold this up: the kernel kills it before it reports the end of pid 1.
///
/// # Errors
/// The kernel's answer to poll, read or waitid.
pub(super) fn supervise(
    child: &mut Child,
    cancel: &CancelHandle,
    output: Option<Output>,
    sink: &mut dyn OutputSink,
) -> io::Result<Outcome> {
    let mut streams: Vec<(OutputStream, OwnedFd)> = output
        .map(|output| {
            vec![
                (OutputStream::Stdout, output.stdout),
                (OutputStream::Stderr, output.stderr),
            ]
        })
        .unwrap_or_default();
    let mut buffer = vec![0; BUFFER];
    let mut cancelled = false;
    let mut pace = Pace::new(&streams);
    loop {
        let ready = wait_for_any(child, cancel, &streams, cancelled)?;
        if ready.cancelled {
            cancelled = true;
            child.kill();
        }
        // Backwards, as closed streams are taken out.
        let mut passed = 0;
        for index in ready.streams.into_iter().rev() {
            let (stream, fd) = &streams[index];
            let (length, left) = pass_on(*stream, fd, sink, &mut buffer)?;
            passed += length;
            if left == Stream::Closed {
                streams.remove(index);
            }
        }
        if ready.ended {
            break;
        }
        if pace.waits_after(passed) && !cancelled {
            wait_a_moment(child, cancel)?;
        }
    }
    let ended = child.wait()?;
    for (stream, fd) in &streams {
        while pass_on(*stream, fd, sink, &mut buffer)?.1 == Stream::More {}
    }
    Ok(if cancelled {
        Outcome::Cancelled
    } else {
        Outcome::Ended(ended)
    })
}

/// What a poll found.
struct Ready {
    ended: bool,
    cancelled: bool,
    streams: Vec<usize>,
}

fn wait_for_any(
    child: &Child,
    cancel: &CancelHandle,
    streams: &[(OutputStream, OwnedFd)],
    already_cancelled: bool,
) -> io::Result<Ready> {
    let mut polled = Vec::with_capacity(4);
    polled.push(PollFd::from_borrowed_fd(child.as_fd(), PollFlags::IN));
    // Once seen, a cancellation stays readable and would keep the poll from ever sleeping.
    let cancel_events = if already_cancelled {
        PollFlags::empty()
    } else {
        PollFlags::IN
    };
    polled.push(PollFd::from_borrowed_fd(cancel.as_fd(), cancel_events));
    polled.extend(
        streams
            .iter()
            .map(|(_, fd)| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)),
    );
    // A child without open streams has ended or is about to; what could keep its end from being reported makes no
    // event of its own.
    let timeout = (streams.is_empty() || already_cancelled).then_some(TRACEE_INTERVAL);
    loop {
        match poll(&mut polled, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(0) => child.wait_for_tracees(),
            Ok(_) => break,
        }
    }
    let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
    Ok(Ready {
        ended: is_ready(&polled[0]),
        cancelled: !already_cancelled && is_ready(&polled[1]),
        streams: (0..streams.len())
            .filter(|index| is_ready(&polled[index + 2]))
            .collect(),
    })
}

/// What is left of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// There may be more at once.
    More,
    /// There is nothing at the moment.
    Empty,
    /// There will be nothing any more.
    Closed,
}

/// Reads what there is, as far as the buffer goes, and passes it on in one piece.
fn pass_on(
    stream: OutputStream,
    fd: &OwnedFd,
    sink: &mut dyn OutputSink,
    buffer: &mut [u8],
) -> io::Result<(usize, Stream)> {
    let mut length = 0;
    let left = loop {
        if length == buffer.len() {
            break Stream::More;
        }
        match rustix::io::read(fd, &mut buffer[length..]) {
            Ok(0) => break Stream::Closed,
            Ok(more) => length += more,
            Err(Errno::AGAIN) => break Stream::Empty,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    if length > 0 {
        sink.write(stream, &buffer[..length]);
    }
    Ok((length, left))
}

/// Tells when output comes in so many small pieces that it is cheaper to let some of them gather: each piece costs several
/// threads a waking. A step that prints less than [`Pace::MUCH`] a [`Pace::WINDOW`] is never kept waiting.
struct Pace {
    half_a_pipe: usize,
    since: Instant,
    bytes: usize,
    is_fast: bool,
}

impl Pace {
    const WINDOW: Duration = Duration::from_millis(2);
    const MUCH: usize = 128 * 1024;

    fn new(streams: &[(OutputStream, OwnedFd)]) -> Self {
        let pipe = streams.first().map(|(_, fd)| rustix::pipe::fcntl_getpipe_size(fd));
        Self {
            half_a_pipe: pipe.and_then(Result::ok).unwrap_or(0) / 2,
            since: Instant::now(),
            bytes: 0,
            is_fast: false,
        }
    }

    fn waits_after(&mut self, passed: usize) -> bool {
        self.bytes += passed;
        let elapsed = self.since.elapsed();
        if elapsed >= Self::WINDOW {
            let much = Self::MUCH as f64 * (elapsed.as_secs_f64() / Self::WINDOW.as_secs_f64());
            self.is_fast = self.bytes as f64 >= much;
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        // One that has filled a pipe waits for room.
        self.is_fast && passed < self.half_a_pipe
    }
}

/// Lets output gather, unless something else happens.
fn wait_a_moment(child: &Child, cancel: &CancelHandle) -> io::Result<()> {
    let mut polled = [
        PollFd::from_borrowed_fd(child.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN),
    ];
    match poll(&mut polled, Some(&MOMENT)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

//! Waits for a container: passes its output on, obeys a cancellation, and notices its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

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

/// As much as a pipe holds.
const BUFFER: usize = 64 * 1024;

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
    loop {
        let ready = wait_for_any(child, cancel, &streams, cancelled)?;
        if ready.cancelled {
            cancelled = true;
            child.kill();
        }
        // Backwards, as closed streams are taken out.
        for index in ready.streams.into_iter().rev() {
            let (stream, fd) = &streams[index];
            if pass_on(*stream, fd, sink, &mut buffer)? == Stream::Closed {
                streams.remove(index);
            }
        }
        if ready.ended {
            break;
        }
    }
    let ended = child.wait()?;
    for (stream, fd) in &streams {
        while pass_on(*stream, fd, sink, &mut buffer)? == Stream::More {}
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

fn pass_on(stream: OutputStream, fd: &OwnedFd, sink: &mut dyn OutputSink, buffer: &mut [u8]) -> io::Result<Stream> {
    match rustix::io::read(fd, &mut *buffer) {
        Ok(0) => Ok(Stream::Closed),
        Ok(length) => {
            sink.write(stream, &buffer[..length]);
            Ok(Stream::More)
        }
        Err(Errno::AGAIN) => Ok(Stream::Empty),
        Err(Errno::INTR) => Ok(Stream::More),
        Err(errno) => Err(errno.into()),
    }
}

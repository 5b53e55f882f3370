//! A process of a container at this command's terminal.
//!
//! ```text
//! our terminal, raw ─► master │ replica ─► the container's controlling terminal
//!                  ◄─         │ size follows ours
//! ```
//! Without a terminal it gets this command's own streams.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use cbs_exec::launch::Stdio;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// How often whoever reads the keyboard looks whether there still is somebody to read for.
const GLANCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Runs something with streams that lead here; `run` must have let go of them when it returns.
///
/// # Errors
/// When there is a terminal and no other can be made for the container.
pub(crate) fn attach<T>(runtime: &tokio::runtime::Runtime, run: impl FnOnce(Stdio) -> T) -> anyhow::Result<T> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    if !stdin.is_terminal() || !stdout.is_terminal() {
        let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(Arc::new);
        let streams = || -> std::io::Result<Stdio> {
            Ok(Stdio::Fds {
                stdin: own(stdin.as_fd())?,
                stdout: own(stdout.as_fd())?,
                stderr: own(std::io::stderr().as_fd())?,
            })
        };
        return Ok(run(streams().context("cannot pass on the standard streams")?));
    }
    let (master, replica) = pair().context("cannot make a terminal")?;
    let raw = Raw::enter()?;
    let (master, over) = (Arc::new(master), Arc::new(AtomicBool::new(false)));
    let size = follow_size(runtime, Arc::clone(&master))?;
    let keyboard = {
        let (master, over) = (Arc::clone(&master), Arc::clone(&over));
        std::thread::Builder::new()
            .name("keyboard".into())
            .spawn(move || pass_keys(&master, &over))
            .context("cannot start a thread")?
    };
    let screen = {
        let master = Arc::clone(&master);
        std::thread::Builder::new()
            .name("screen".into())
            .spawn(move || pass_output(&master))
            .context("cannot start a thread")?
    };
    let result = run(Stdio::Terminal(Arc::new(replica)));
    // With the last replica gone the master reads to its end: nothing that was printed is lost.
    screen.join().unwrap_or_default();
    over.store(true, Ordering::Release);
    keyboard.join().unwrap_or_default();
    size.abort();
    drop(raw);
    Ok(result)
}

fn pair() -> std::io::Result<(File, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let replica = rustix::fs::open(&*name, flags, rustix::fs::Mode::empty())?;
    Ok((master.into(), replica))
}

/// Our terminal in raw mode; as it was when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("cannot read the mode of the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &raw).context("cannot set the mode of the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0).unwrap_or_default();
    }
}

/// Gives the container's terminal the size of ours, now and whenever that changes.
fn follow_size(runtime: &tokio::runtime::Runtime, master: Arc<File>) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let copy = move || {
        // A size that cannot be told is not worth an error.
        if let Ok(size) = tcgetwinsize(std::io::stdout()) {
            tcsetwinsize(&*master, size).unwrap_or_default();
        }
    };
    copy();
    let entered = runtime.enter();
    let mut changes = signal(SignalKind::window_change()).context("cannot listen to signals")?;
    drop(entered);
    Ok(runtime.spawn(async move {
        while changes.recv().await.is_some() {
            copy();
        }
    }))
}

fn pass_keys(mut master: &File, over: &AtomicBool) {
    let stdin = std::io::stdin();
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Acquire) {
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut polled, Some(&GLANCE)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        // Not through the standard library's buffer, which would take more than it gives.
        match rustix::io::read(&stdin, &mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if master.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        }
    }
}

fn pass_output(mut master: &File) {
    let mut out = std::io::stdout();
    let mut buffer = [0; 16 << 10];
    // Ends with an error when nobody has the replica any more.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        if out.write_all(&buffer[..length]).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

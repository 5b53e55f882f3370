//! Programs of this machine that serve containers while a build runs: the one behind a network, an ssh agent.
//!
//! ```text
//! start ─► thread ─ (makes a network namespace) ─ clone ─► program      guard, and the kernel should the guard be gone:
//!             │                                                          kill it should this process die
//!             │  asks `is_ready` until it says so                      stop: kills it and waits for its end
//!             └► Ready | Failed(what the program said) ─► Helper::wait
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, pidfd_open};

use super::cancel::CancelHandle;
use super::error::LaunchError;
use super::launcher::{Launcher, own_error};
use super::script::exec_plan;
use super::spec::{Ids, ProcessSpec, Stdio};
use super::step::{Step, StreamSource};
use super::sys::{self, Child, CloneOptions, Failure, Guard, Memory, Program};

/// The network namespace of the thread that asks.
const OWN_NETWORK: &str = "/proc/thread-self/ns/net";
/// How often a helper is asked whether it is ready.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LAST_PAUSE: Duration = Duration::from_millis(5);
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// As much of what it says as a message can hold.
const TAIL: usize = 2048;

/// What to start.
pub struct HelperSpec {
    /// Program, as a path, and its arguments.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<OsString>,
    /// Its standard input, when it serves no network; the null device without.
    pub stdin: Option<Arc<OwnedFd>>,
    /// Whether it serves a network of its own making.
    pub network: HelperNetwork,
    /// Tells whether it is ready; asked from a thread that is in the new network, again and again.
    pub is_ready: Box<dyn FnMut() -> bool + Send>,
}

/// Whether a helper serves a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperNetwork {
    /// It does not.
    None,
    /// A new network namespace with a loopback interface is made for it. The program itself stays in this process's
    /// network and finds the new one as its standard input, at `/proc/self/fd/0`.
    Serve,
}

/// A running helper. Dropping it ends it.
#[derive(Debug)]
pub struct Helper {
    shared: Arc<Shared>,
    stop: CancelHandle,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Starting,
    /// With the network it serves.
    Ready(Option<Arc<OwnedFd>>),
    Failed(String),
}

impl Shared {
    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_all();
    }
}

impl Helper {
    /// Waits until it is ready; gives the network it serves, if it serves one.
    ///
    /// # Errors
    /// What it said, or how it ended, when it did not become ready.
    pub fn wait(&self) -> Result<Option<Arc<OwnedFd>>, String> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Starting => {}
                State::Ready(network) => return Ok(network.clone()),
                State::Failed(why) => return Err(why.clone()),
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened; the program died with the thread's stack.
            thread.join().unwrap_or_default();
        }
    }
}

impl Launcher {
    /// Starts a helper and does not wait for it.
    ///
    /// # Errors
    /// [`LaunchError`] when not even a thread can be started; all else is told by [`Helper::wait`].
    pub fn helper(&self, spec: HelperSpec) -> Result<Helper, LaunchError> {
        let fail = |source| own_error("start a helper of the", source);
        let guard = self.guard()?;
        let stop = CancelHandle::new().map_err(fail)?;
        let shared = Arc::new(Shared::default());
        let (seen, told) = (stop.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("cbs-helper".into()).spawn(move || {
            let reported = Arc::clone(&told);
            if let Err(why) = serve(spec, &guard, &seen, &told) {
                reported.set(State::Failed(why));
            }
        });
        Ok(Helper {
            shared,
            stop,
            thread: Some(thread.map_err(fail)?),
        })
    }
}

/// Runs something in an existing network namespace, on a thread of its own. For containers with a user namespace of their
/// own, which could not enter it by themselves.
///
/// # Errors
/// The kernel's answer to setns; a panic there is a panic here.
pub fn in_network<T: Send>(network: &OwnedFd, run: impl FnOnce() -> T + Send) -> io::Result<T> {
    let inside = || {
        sys::enter_network(network.as_fd())?;
        Ok(run())
    };
    match std::thread::scope(|scope| scope.spawn(inside).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The life of a helper, from its thread's point of view; an error is why it did not become ready.
fn serve(mut spec: HelperSpec, guard: &Arc<Guard>, stop: &CancelHandle, shared: &Shared) -> Result<(), String> {
    let text = |action: &'static str| move |err: io::Error| format!("cannot {action}: {err}");
    let mut steps = vec![Step::ResetSignals, Step::NewSession];
    // It must live until the child has it.
    let mut network = None;
    if spec.network == HelperNetwork::Serve {
        let made = new_network().map_err(text("make a network namespace"))?;
        steps.push(stream(0, StreamSource::Descriptor(made.as_raw_fd())));
        network = Some(Arc::new(made));
    } else {
        let stdin = spec.stdin.as_ref();
        steps.push(stream(
            0,
            stdin.map_or(StreamSource::Null, |fd| StreamSource::Descriptor(fd.as_raw_fd())),
        ));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| text("make a pipe")(errno.into()));
    let ((said, says), (failed, fails)) = (pipe()?, pipe()?);
    for reading in [&said, &failed] {
        let set = rustix::fs::fcntl_setfl(reading, OFlags::NONBLOCK);
        set.map_err(|errno| text("make a pipe")(errno.into()))?;
    }
    let parent = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let parent = parent.map_err(|errno| text("open this process")(errno.into()))?;
    for number in [1, 2] {
        steps.push(stream(number, StreamSource::Descriptor(says.as_raw_fd())));
    }
    steps.push(Step::CloseInherited);
    // The guard shares this process's memory, so what kills this one for its size kills it as well.
    steps.push(Step::DieWithParent);
    let process = ProcessSpec {
        args: std::mem::take(&mut spec.args),
        env: std::mem::take(&mut spec.env),
        cwd: PathBuf::from("/"),
        user: Ids::default(),
        rlimits: Vec::new(),
        stdio: Stdio::Captured,
    };
    steps.push(Step::Exec(exec_plan(&process).map_err(|err| err.to_string())?));
    let program = Program {
        steps,
        report: fails.as_raw_fd(),
        parent: parent.as_raw_fd(),
        // It runs on this machine, where what it executes is trusted.
        doorman: None,
        slots: Box::default(),
    };
    let options = CloneOptions {
        namespaces: 0,
        cgroup: None,
        memory: Memory::Shared,
    };
    let child = Child::spawn(program, options, guard).map_err(text("start a process"))?;
    drop((says, fails));

    let mut tail = Tail::new(said);
    let (start, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        if watch(&child, stop, &mut tail, Some(pause)) != Seen::Nothing {
            tail.take();
            return Err(match start_failure(&child, &failed) {
                Some(why) => why,
                None => tail.text(),
            });
        }
        let is_ready = match &network {
            None => (spec.is_ready)(),
            Some(network) => in_network(network, &mut spec.is_ready).map_err(text("enter the new network"))?,
        };
        if is_ready {
            break;
        }
        if start.elapsed() > PATIENCE {
            return Err(format!(
                "it was not ready after {} s; {}",
                PATIENCE.as_secs(),
                tail.text()
            ));
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
    shared.set(State::Ready(network));
    while watch(&child, stop, &mut tail, None) == Seen::Nothing {}
    // Dropping the child kills it and waits for its end.
    Ok(())
}

/// A new network namespace with a loopback interface. It is made on another thread, since root of a user namespace could
/// not come back to the network of this one.
fn new_network() -> io::Result<OwnedFd> {
    let make = || {
        sys::enter_new_network()?;
        Ok(OwnedFd::from(File::open(OWN_NETWORK)?))
    };
    match std::thread::scope(|scope| scope.spawn(make).join()) {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn stream(stream: i32, source: StreamSource) -> Step {
    Step::SetStream { stream, source }
}

/// What kept the child from becoming the program.
fn start_failure(child: &Child, failed: &OwnedFd) -> Option<String> {
    let mut bytes = [0; Failure::SIZE];
    let length = rustix::io::read(failed, &mut bytes).ok()?;
    let failure = bytes.get(..length).and_then(Failure::decode)?;
    let step = child.program().step_of(failure)?;
    Some(step.failure(failure.errno, failure.detail).to_string())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    End,
}

/// Waits for the child's end or the wish for it, and reads what the child says meanwhile: a full pipe would stop it.
fn watch(child: &Child, stop: &CancelHandle, tail: &mut Tail, at_most: Option<Duration>) -> Seen {
    let mut polled = vec![
        PollFd::from_borrowed_fd(child.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
    ];
    if let Some(from) = &tail.from {
        polled.push(PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN));
    }
    let timeout = at_most.map(|at_most| Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(at_most.subsec_nanos()),
    });
    // An interrupted poll has seen nothing.
    let _interrupted = poll(&mut polled, timeout.as_ref());
    let ended = polled[..2].iter().any(|polled| !polled.revents().is_empty());
    let talks = polled.get(2).is_some_and(|polled| !polled.revents().is_empty());
    drop(polled);
    if talks {
        tail.take();
    }
    if ended { Seen::End } else { Seen::Nothing }
}

/// The last of what a helper says.
struct Tail {
    from: Option<OwnedFd>,
    bytes: Vec<u8>,
}

impl Tail {
    fn new(from: OwnedFd) -> Self {
        Self {
            from: Some(from),
            bytes: Vec::new(),
        }
    }

    fn take(&mut self) {
        let mut buffer = [0; 1024];
        while let Some(from) = &self.from {
            match rustix::io::read(from, &mut buffer) {
                Ok(length) if length > 0 => {
                    self.bytes.extend_from_slice(&buffer[..length]);
                    let surplus = self.bytes.len().saturating_sub(TAIL);
                    self.bytes.drain(..surplus);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                // Closed: polling it again would find it readable for ever.
                _ => self.from = None,
            }
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            "it ended without a word".to_owned()
        } else {
            text
        }
    }
}

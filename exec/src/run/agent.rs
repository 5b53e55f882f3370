//! Ssh agents for steps: the user's own, or one of ours that holds the keys of some files, each behind a socket made for
//! one step.
//!
//! ```text
//! step ─► socket (owner and mode as the step asks) ─ list, sign ─► agent
//!                                                  └ all else ──► refused
//! ```
//! A step can use keys and cannot add, remove or lock them, as with BuildKit.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use cbs_solver::{FailureKind, StepError};
use cbs_store::Lease;
use rustix::event::{PollFd, PollFlags, poll};

use super::system;
use crate::config::SshSource;
use crate::executor::Shared;
use crate::launch::{CancelHandle, Helper, HelperNetwork, HelperSpec};

/// The name of a socket in its folder.
const SOCKET: &str = "agent";
/// The longest message, as OpenSSH has it.
const LONGEST: usize = 256 * 1024;
/// What an agent answers when it will not do something.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// The requests a step may make: for a list of keys, and for a signature.
const ALLOWED: [u8; 2] = [11, 13];

/// The agents an executor has started, by id.
#[derive(Default)]
pub(crate) struct Agents {
    known: Mutex<BTreeMap<String, Arc<KeyAgent>>>,
}

/// An `ssh-agent` with the keys of some files.
struct KeyAgent {
    /// Before the folder, which must outlive the program.
    _helper: Helper,
    dir: Folder,
}

/// A folder of a lease's scratch, given back when dropped.
struct Folder {
    path: PathBuf,
    lease: Arc<Lease>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.lease.discard(self.path.clone());
    }
}

/// The socket of the agent `id`, which is started if it is one of ours; `None` when there is no such agent.
///
/// # Errors
/// [`StepError`] when a key cannot be read or needs a passphrase, or `ssh-agent` is not installed.
pub(crate) fn socket(shared: &Shared, id: &str) -> Result<Option<PathBuf>, StepError> {
    let keys = match shared.config.ssh.get(id) {
        None => return Ok(None),
        Some(SshSource::Agent(socket)) => return Ok(Some(socket.clone())),
        Some(SshSource::Keys(keys)) => keys,
    };
    let mut known = shared.agents.known.lock().unwrap_or_else(PoisonError::into_inner);
    let agent = match known.get(id) {
        Some(agent) => Arc::clone(agent),
        None => {
            let started = Arc::new(start(shared, id, keys)?);
            known.insert(id.to_owned(), Arc::clone(&started));
            started
        }
    };
    Ok(Some(agent.dir.path.join(SOCKET)))
}

fn start(shared: &Shared, id: &str, keys: &[PathBuf]) -> Result<KeyAgent, StepError> {
    let lease = &shared.config.lease;
    let dir = Folder {
        path: lease.new_dir("agent")?,
        lease: Arc::clone(lease),
    };
    std::fs::set_permissions(&dir.path, Permissions::from_mode(0o700))
        .map_err(|err| system("close", &dir.path, err))?;
    let folder = open(&dir.path).map_err(|err| system("open", &dir.path, err))?;
    let socket = dir.path.join(SOCKET);
    let spec = HelperSpec {
        // A socket's path may be no longer than 107 bytes, hence the way through the folder's descriptor.
        args: ["ssh-agent", "-D", "-a", "/proc/self/fd/0/agent"]
            .map(Into::into)
            .into(),
        env: vec![search_path()],
        stdin: Some(folder),
        network: HelperNetwork::None,
        is_ready: Box::new(move || socket.exists()),
    };
    let failed = |why: String| {
        let message = format!("ssh `{id}`: cannot start `ssh-agent` (package `openssh-client`): {why}");
        StepError::new(FailureKind::Unsupported, message)
    };
    let helper = shared.launcher().helper(spec).map_err(|err| failed(err.to_string()))?;
    helper.wait().map_err(failed)?;
    for key in keys {
        add(&dir.path, key).map_err(|why| {
            let message = format!("ssh `{id}`: key `{}`: {why}", key.display());
            StepError::new(FailureKind::MissingSource, message)
        })?;
    }
    Ok(KeyAgent { _helper: helper, dir })
}

fn search_path() -> std::ffi::OsString {
    "PATH=/usr/local/bin:/usr/bin:/bin".into()
}

/// Gives a key to the agent of a folder. The file is read here, so that its mode is nobody's business.
fn add(dir: &Path, key: &Path) -> Result<(), String> {
    let bytes = std::fs::read(key).map_err(|err| format!("cannot be read: {err}"))?;
    let mut child = Command::new("ssh-add")
        .args(["-q", "-"])
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("SSH_AUTH_SOCK", SOCKET)
        // Nobody is asked for a passphrase in the middle of a build.
        .env("SSH_ASKPASS", "/bin/false")
        .env("SSH_ASKPASS_REQUIRE", "force")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|err| format!("cannot start `ssh-add`: {err}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why.
        stdin.write_all(&bytes).unwrap_or_default();
    }
    let output = child.wait_with_output().map_err(|err| err.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(if said.contains("passphrase") {
        "it needs a passphrase; add it to an agent and pass that with --ssh".to_owned()
    } else {
        format!("it is not accepted: {said}")
    })
}

fn open(dir: &Path) -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(File::open(dir)?.into()))
}

/// A socket for one step, served until dropped.
pub(super) struct Door {
    /// Where it is.
    pub(super) path: PathBuf,
    stop: CancelHandle,
    thread: Option<JoinHandle<()>>,
    _dir: Folder,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

/// Who may use a step's socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// Opens a door to an agent.
pub(super) fn door(shared: &Shared, agent: &Path, owner: Owner) -> Result<Door, StepError> {
    let lease = &shared.config.lease;
    let dir = Folder {
        path: lease.new_dir("ssh")?,
        lease: Arc::clone(lease),
    };
    let path = dir.path.join(SOCKET);
    let fail = |action| {
        let path = path.clone();
        move |err| system(action, &path, err)
    };
    let listener = open(&dir.path)
        .and_then(|folder| UnixListener::bind(through(&folder)))
        .map_err(fail("listen at"))?;
    chown(&path, Some(owner.uid), Some(owner.gid))
        .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(owner.mode)))
        .map_err(fail("give to the step the socket"))?;
    // Tried once, so that an agent that is gone is named before the step fails in its own words.
    connect(agent).map_err(|err| {
        let message = format!("cannot reach the ssh agent at `{}`", agent.display());
        StepError::caused(FailureKind::MissingSource, message, err)
    })?;
    let stop = CancelHandle::new().map_err(fail("serve"))?;
    let (seen, agent) = (stop.clone(), agent.to_owned());
    let thread = std::thread::Builder::new()
        .name("ssh".into())
        .spawn(move || serve(&listener, &seen, &agent))
        .map_err(fail("serve"))?;
    Ok(Door {
        path,
        stop,
        thread: Some(thread),
        _dir: dir,
    })
}

/// A short path to the socket of an open folder.
fn through(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

fn connect(agent: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (agent.parent(), agent.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(dir)?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

fn serve(listener: &UnixListener, stop: &CancelHandle, agent: &Path) {
    loop {
        let mut polled = [
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
        ];
        // An interrupted poll has seen nothing.
        let _interrupted = poll(&mut polled, None);
        if !polled[0].revents().is_empty() {
            return;
        }
        if polled[1].revents().is_empty() {
            continue;
        }
        let (Ok((client, _)), Ok(agent)) = (listener.accept(), connect(agent)) else {
            continue;
        };
        // Ends when the step's side does; without a thread the step sees its connection closed.
        let spawned = std::thread::Builder::new().name("ssh".into()).spawn(move || {
            // Whichever side broke off, the other learns it by the end of its connection.
            let _broken = talk(client, agent);
        });
        drop(spawned);
    }
}

/// Passes on what is allowed, one request after the other.
fn talk(mut client: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    while let Some(request) = message(&mut client)? {
        let answer = match request.get(4) {
            Some(kind) if ALLOWED.contains(kind) => {
                agent.write_all(&request)?;
                message(&mut agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            _ => FAILURE.to_vec(),
        };
        client.write_all(&answer)?;
    }
    Ok(())
}

/// Reads a message with its length; `None` at the end.
fn message(from: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let size = u32::from_be_bytes(length) as usize;
    if size == 0 || size > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; 4 + size];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..])?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listing_and_signing_reach_the_agent() {
        let ((mut step, client), (agent, mut real)) =
            (UnixStream::pair().expect("pair"), UnixStream::pair().expect("pair"));
        let talking = std::thread::spawn(move || talk(client, agent));
        // Remove all identities.
        step.write_all(&[0, 0, 0, 1, 19]).expect("write");
        assert_eq!(message(&mut step).expect("read").expect("answer"), FAILURE);
        step.write_all(&[0, 0, 0, 1, 11]).expect("write");
        assert_eq!(message(&mut real).expect("read").expect("request"), [0, 0, 0, 1, 11]);
        real.write_all(&[0, 0, 0, 2, 12, 0]).expect("write");
        assert_eq!(message(&mut step).expect("read").expect("answer"), [0, 0, 0, 2, 12, 0]);
        // A length that is too long ends the conversation.
        step.write_all(&[255; 8]).expect("write");
        assert!(talking.join().expect("join").is_err());
    }
}

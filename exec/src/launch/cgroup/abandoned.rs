//! Groups of processes that are no more.
//!
//! `cbs-PID-START-NUMBER-NAMESPACE`: the owner by its id and start time, the owner's how many-th group it is, and the pid
//! namespace in which the id means something.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::CgroupBase;

/// A process as the names of its groups say it.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pid: u32,
    start: u64,
    namespace: String,
}

impl Owner {
    /// This one.
    pub(super) fn this_process() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            start: start_time(pid).unwrap_or(0),
            namespace: pid_namespace(),
        }
    }

    /// The name of one of its groups.
    pub(super) fn name(&self, number: u64) -> String {
        let Self { pid, start, namespace } = self;
        format!("cbs-{pid}-{start}-{number}-{namespace}")
    }
}

/// How far a sweep looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepDepth {
    /// Among groups that were made where groups are made.
    Own,
    /// Among those below parents that builds were told, too.
    Parents,
}

impl CgroupBase {
    /// Removes the groups of processes that are no more, and kills what still runs in them; false when some would not go,
    /// since what is in them is only just dying.
    pub(in crate::launch) fn sweep(&self, depth: SweepDepth) -> bool {
        let mut all_gone = true;
        for base in self.directories() {
            all_gone &= match depth {
                SweepDepth::Own => sweep_directory(base),
                SweepDepth::Parents => sweep_below(base),
            };
        }
        all_gone
    }

    /// The same for the groups below one parent.
    pub(super) fn sweep_parent(&self, parent: &Path) {
        for base in self.directories() {
            sweep_directory(&base.join(parent));
        }
    }

    fn directories(&self) -> Vec<&Path> {
        match self {
            Self::None => Vec::new(),
            Self::Unified(base) => vec![base.as_path()],
            Self::Legacy(bases) => bases.iter().map(|(_, base)| base.as_path()).collect(),
        }
    }
}

/// The same for one directory.
fn sweep_directory(directory: &Path) -> bool {
    let mut all_gone = true;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_abandoned(name)) else {
            continue;
        };
        let is_gone = fs::remove_dir(entry.path()).is_ok();
        if !is_gone && name.rsplit('-').next() == Some(&pid_namespace()) {
            kill_all(&entry.path());
        }
        all_gone &= is_gone;
    }
    all_gone
}

/// The same for all directories below this one that are nobody's group. Dear where there are many.
fn sweep_below(directory: &Path) -> bool {
    let mut all_gone = sweep_directory(directory);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && !entry.file_name().as_encoded_bytes().starts_with(b"cbs-") {
            all_gone &= sweep_below(&entry.path());
        }
    }
    all_gone
}

/// Whether a group's name says that it belongs to a process that is no more.
fn is_abandoned(name: &str) -> bool {
    let mut parts = name.strip_prefix("cbs-").unwrap_or("").split('-');
    match (parts.next().map(str::parse), parts.next().map(str::parse)) {
        (Some(Ok(pid)), Some(Ok(start))) => start_time(pid) != Some(start),
        _ => false,
    }
}

/// What the pid namespace of this process is called; numbers of processes mean something within one only.
fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect();
    link.to_str().map(digits).unwrap_or_default()
}

/// Kills what is in a group whose owner and its guard died together; a container that changed its user survives that.
fn kill_all(directory: &Path) {
    let members = || -> Vec<i32> {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    for member in members() {
        let Some(pid) = Pid::from_raw(member) else { continue };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // Looked up again behind the descriptor: the number could have become somebody else's.
        if members().contains(&member) {
            // One that has just ended is what is wanted.
            let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}

/// When a process was started, in ticks since boot; with its id it names the process for good.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; field 22 is the 20th behind it.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_abandoned_groups() {
        let own = std::process::id();
        let start = start_time(own).expect("own start time");
        let cases = [
            (format!("cbs-{own}-{start}-0"), false),
            (Owner::this_process().name(0), false),
            (format!("cbs-{own}-{}-0", start + 1), true),
            ("cbs-99999999999-1-0".to_owned(), false),
            ("cbs-4194303-1-0".to_owned(), true),
            ("cbs-x-1".to_owned(), false),
            ("docker-1-1".to_owned(), false),
        ];
        for (name, want) in cases {
            assert_eq!(is_abandoned(&name), want, "{name}");
        }
    }
}

//! Root of a user namespace, for users who are not root of the machine.
//!
//! ```text
//! user 1000 ─ unshare ─► nobody ─ newuidmap, newgidmap ─► root here: 0 is 1000, 1… are the ranges of /etc/subuid
//!                              └─ else uid_map by itself ─► root here: 0 is 1000, and there is nobody else
//! ```
//! The process itself moves, early in `main`, so that its terminal, signals and exit code stay what they are. The two
//! helpers are set-user-id programs that must run outside: they are started before and wait for a word.

mod sys;

use std::fs;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use cbs_store::KnownIds;

/// As whom containers can be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// As the root that this process already was.
    #[default]
    Root,
    /// As root of a user namespace with ranges of ids.
    Ranges,
    /// As root of a user namespace with one id.
    SingleId {
        /// Why it has no ranges.
        why: String,
    },
    /// Not at all: there is no user namespace.
    Refused {
        /// Why, and what can be done about it.
        why: String,
    },
}

/// Moves a process of an ordinary user into a user namespace of its own, whose root it becomes. Call it first thing in
/// `main`, before any other thread is started.
///
/// `login` is the name to look for in `/etc/subuid` when `/etc/passwd` does not know the user.
pub fn enter(login: Option<&str>) -> Standing {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let helpers = Helpers::start(uid, gid, login);
    if let Err(err) = sys::unshare_user_namespace() {
        return Standing::Refused { why: refusal(&err) };
    }
    let why = match helpers.and_then(Helpers::finish) {
        Ok(()) => return Standing::Ranges,
        Err(why) => why,
    };
    match map_single(uid, gid) {
        Ok(()) => Standing::SingleId { why },
        Err(err) => Standing::Refused { why: refusal(&err) },
    }
}

/// The ids of the user namespace that this process is in. Where `/proc` cannot tell, the machine's.
#[must_use]
pub fn known_ids() -> KnownIds {
    match (
        fs::read_to_string("/proc/self/uid_map"),
        fs::read_to_string("/proc/self/gid_map"),
    ) {
        (Ok(users), Ok(groups)) => KnownIds::from_maps(&users, &groups),
        _ => KnownIds::all(),
    }
}

/// What the kernel's no means, in the words of who can change it.
#[must_use]
pub fn refusal(err: &io::Error) -> String {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).is_some_and(|found| found == value);
    let cure = if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "let users have them with `sysctl kernel.unprivileged_userns_clone=1`"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "let users have them with `sysctl user.max_user_namespaces=10000`"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor keeps them from users: give cbs a profile with `userns`, or run \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    } else {
        "the container or security policy around this process forbids them; allow them there, or run cbs as root"
    };
    format!("the kernel gives no user namespace to this user ({err}); {cure}")
}

/// One `newuidmap` or `newgidmap`, waiting to be told to go on.
struct Helper {
    tool: &'static str,
    child: Child,
}

struct Helpers([Helper; 2]);

impl Helpers {
    /// Starts both, if there are ranges for this user.
    fn start(uid: u32, gid: u32, login: Option<&str>) -> Result<Self, String> {
        let login = login_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), uid)
            .or_else(|| login.map(ToOwned::to_owned));
        let start = |tool, file: &str, own| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let ranges = ranges(&text, uid, login.as_deref());
            if ranges.is_empty() {
                return Err(format!("`{file}` has no range for user {uid}"));
            }
            Helper::start(tool, own, &ranges)
        };
        let users = start("newuidmap", "/etc/subuid", uid)?;
        match start("newgidmap", "/etc/subgid", gid) {
            Ok(groups) => Ok(Self([users, groups])),
            Err(why) => {
                users.dismiss();
                Err(why)
            }
        }
    }

    /// Lets both write their maps.
    fn finish(self) -> Result<(), String> {
        let [users, groups] = self.0;
        match users.finish() {
            Ok(()) => groups.finish(),
            Err(why) => {
                groups.dismiss();
                Err(why)
            }
        }
    }
}

impl Helper {
    fn start(tool: &'static str, own: u32, ranges: &[(u32, u32)]) -> Result<Self, String> {
        // The shell waits, which the tool itself cannot; on end of file it ends.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read -r go && exec \"$0\" \"$@\"", tool]);
        command.arg(std::process::id().to_string());
        command.args(map_fields(own, ranges).iter().map(ToString::to_string));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Ok(Self { tool, child }),
            Err(err) => Err(format!("`{tool}` cannot be started: {err}")),
        }
    }

    /// Ends it without a word.
    fn dismiss(mut self) {
        drop(self.child.stdin.take());
        // It is gone either way.
        self.child.wait().map(drop).unwrap_or_default();
    }

    fn finish(mut self) -> Result<(), String> {
        let tool = self.tool;
        let mut run = || {
            if let Some(mut stdin) = self.child.stdin.take() {
                stdin.write_all(b"go\n")?;
            }
            let mut said = String::new();
            if let Some(mut stderr) = self.child.stderr.take() {
                stderr.read_to_string(&mut said)?;
            }
            Ok((self.child.wait()?, said))
        };
        let (status, said) = run().map_err(|err: io::Error| format!("`{tool}` failed: {err}"))?;
        match status.code() {
            Some(0) => Ok(()),
            Some(127) => Err(format!("`{tool}` is missing; install the package `uidmap`")),
            _ => Err(format!("`{tool}` failed: {}", said.trim())),
        }
    }
}

/// Maps root to the one id that every process may map.
fn map_single(uid: u32, gid: u32) -> io::Result<()> {
    // One of the two may have been written by its helper.
    let write = |file: &str, id: u32| match fs::read_to_string(file) {
        Ok(map) if !map.trim().is_empty() => Ok(()),
        _ => fs::write(file, format!("0 {id} 1\n")),
    };
    write("/proc/self/uid_map", uid)?;
    // Without it a user could leave a group that is there to keep him out.
    fs::write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", gid)
}

/// A user's name in the text of `/etc/passwd`.
fn login_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A user's ranges in the text of `/etc/subuid` or `/etc/subgid`: first and count, those without ids left out.
fn ranges(text: &str, uid: u32, login: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        if Some(owner) != login && owner.parse() != Ok(uid) {
            return None;
        }
        let (first, count) = (first.parse().ok()?, count.parse().ok()?);
        (count > 0).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// The arguments of `newuidmap` after the process: root is the user, the others follow in the order of the ranges.
fn map_fields(own: u32, ranges: &[(u32, u32)]) -> Vec<u32> {
    let mut fields = vec![0, own, 1];
    let mut next: u32 = 1;
    for &(first, count) in ranges {
        let count = count.min(u32::MAX - next);
        if count == 0 {
            break;
        }
        fields.extend([next, first, count]);
        next += count;
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_go_by_name_and_by_number() {
        let text = "root:1:5\nann:100000:65536\n1000:300000:10\n# no\nann:x:1\nann:200000:0\nbob:1:1\n";
        assert_eq!(ranges(text, 1000, Some("ann")), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(ranges(text, 1000, None), [(300_000, 10)]);
        assert_eq!(ranges(text, 7, Some("carl")), []);
        assert_eq!(ranges("", 7, None), []);
    }

    #[test]
    fn maps_begin_with_the_user() {
        assert_eq!(
            map_fields(1000, &[(100_000, 65_536), (300_000, 10)]),
            [0, 1000, 1, 1, 100_000, 65_536, 65_537, 300_000, 10]
        );
        assert_eq!(map_fields(1, &[(5, u32::MAX), (9, 9)]), [0, 1, 1, 1, 5, u32::MAX - 1]);
    }

    #[test]
    fn names_come_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n";
        assert_eq!(login_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(login_name(passwd, 1001), None);
    }
}

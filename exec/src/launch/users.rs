//! From a `USER` text and the image's `passwd` and `group` files to numbers.
//!
//! The rules are BuildKit's: a number is never looked up as a name, the first matching line wins, a missing file is an
//! empty one, broken lines are read as far as they go, and the supplementary groups of `group` apply only when the
//! text names no group itself.

use super::spec::Ids;

/// The largest id BuildKit accepts, although Linux would take more.
const MAX_ID: i64 = i32::MAX as i64;

/// The texts of the image's `/etc/passwd` and `/etc/group`; empty when the image has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserFiles<'a> {
    /// `/etc/passwd`.
    pub passwd: &'a [u8],
    /// `/etc/group`.
    pub group: &'a [u8],
}

/// Why a user text has no ids. The words are those of runc and BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The name is not in `passwd`.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoSuchUser {
        /// The name as given.
        name: String,
    },
    /// The name is not in `group`.
    #[error("unable to find group {name}: no matching entries in group file")]
    NoSuchGroup {
        /// The name as given.
        name: String,
    },
    /// The number is negative or too large.
    #[error("uids and gids must be in range 0-{MAX_ID}")]
    OutOfRange {
        /// The number as given.
        text: String,
    },
}

/// Resolves `name`, `uid`, `name:group`, `uid:gid` and mixtures of them; the empty text is root.
///
/// The primary group is the first of the supplementary groups, as the container runtimes do it.
///
/// # Errors
/// A name that is in no file, or a number out of range.
pub fn resolve(user: &str, files: UserFiles<'_>) -> Result<Ids, UserError> {
    let (user_text, group_text) = user.split_once(':').unwrap_or((user, ""));
    // An empty group text (`name:`) counts as none.
    let explicit_group = if group_text.is_empty() {
        None
    } else {
        Some(Wanted::parse(group_text)?)
    };
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let wanted_user = Wanted::parse(user_text)?;

    // Two numbers need no file at all, so a broken `passwd` cannot change what they mean.
    if let (Wanted::Number(uid), Some(Wanted::Number(gid))) = (&wanted_user, &explicit_group) {
        return Ok(Ids {
            uid: *uid,
            gid: *gid,
            supplementary: vec![*gid],
        });
    }

    let entry = passwd_entries(files.passwd).find(|entry| wanted_user.matches(entry.name, entry.uid));
    let (uid, primary) = match (&entry, &wanted_user) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Wanted::Number(uid)) => (*uid, 0),
        (None, Wanted::Name(name)) => return Err(UserError::NoSuchUser { name: name.clone() }),
    };
    let gid = match &explicit_group {
        None => primary,
        Some(wanted) => match (
            group_entries(files.group).find(|group| wanted.matches(group.name, group.gid)),
            wanted,
        ) {
            (Some(group), _) => group.gid,
            (None, Wanted::Number(gid)) => *gid,
            (None, Wanted::Name(name)) => return Err(UserError::NoSuchGroup { name: name.clone() }),
        },
    };
    let mut supplementary = vec![gid];
    if let (None, Some(entry)) = (&explicit_group, &entry)
        && !entry.name.is_empty()
    {
        for group in group_entries(files.group).filter(|group| group.has_member(entry.name)) {
            if !supplementary.contains(&group.gid) {
                supplementary.push(group.gid);
            }
        }
    }
    Ok(Ids {
        uid,
        gid,
        supplementary,
    })
}

/// The home directory `passwd` gives for a user id, for `HOME`; `/` when it gives none.
#[must_use]
pub fn home(uid: u32, passwd: &[u8]) -> String {
    passwd_entries(passwd)
        .find(|entry| entry.uid == uid)
        .map(|entry| String::from_utf8_lossy(entry.home).into_owned())
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".to_owned())
}

/// One half of a user text.
enum Wanted {
    Number(u32),
    Name(String),
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, UserError> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(text.to_owned()));
        }
        let out_of_range = || UserError::OutOfRange { text: text.to_owned() };
        let number: i64 = text.parse().map_err(|_too_long| out_of_range())?;
        if !(0..=MAX_ID).contains(&number) {
            return Err(out_of_range());
        }
        u32::try_from(number)
            .map(Self::Number)
            .map_err(|_too_large| out_of_range())
    }

    fn matches(&self, name: &[u8], id: u32) -> bool {
        match self {
            Self::Number(number) => *number == id,
            Self::Name(wanted) => wanted.as_bytes() == name,
        }
    }
}

struct PasswdEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl GroupEntry<'_> {
    fn has_member(&self, name: &[u8]) -> bool {
        self.members.split(|&byte| byte == b',').any(|member| member == name)
    }
}

/// `name:password:uid:gid:gecos:home:shell`
fn passwd_entries(text: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(text).map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let mut next = || fields.next().unwrap_or_default();
        let (name, _password, uid, gid, _gecos, home) = (next(), next(), next(), next(), next(), next());
        PasswdEntry {
            name,
            uid: lenient_id(uid),
            gid: lenient_id(gid),
            home,
        }
    })
}

/// `name:password:gid:member,member`
fn group_entries(text: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(text).filter(|line| line[0] != b'#').map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let mut next = || fields.next().unwrap_or_default();
        let (name, _password, gid, members) = (next(), next(), next(), next());
        GroupEntry {
            name,
            gid: lenient_id(gid),
            members,
        }
    })
}

/// Lines without surrounding blanks, none of them empty.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

/// A field that is no number counts as 0, as the reference reads such files.
fn lenient_id(field: &[u8]) -> u32 {
    std::str::from_utf8(field)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\n  app:x:1000:1001:App:/home/app:/bin/sh\nnohome:x:7:8\nbad:x:x:y:::\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    const GROUP: &[u8] =
        b"root:x:0:root\n# comment:x:5:app\nwheel:x:10:root,app\nvideo:x:27:app\nappgroup:x:1001:app\n";

    fn ids(uid: u32, gid: u32, supplementary: &[u32]) -> Result<Ids, UserError> {
        Ok(Ids {
            uid,
            gid,
            supplementary: supplementary.to_vec(),
        })
    }

    #[test]
    fn resolves_every_form_as_buildkit_does() {
        let no_user = |name: &str| Err(UserError::NoSuchUser { name: name.to_owned() });
        let no_group = |name: &str| Err(UserError::NoSuchGroup { name: name.to_owned() });
        let out_of_range = |text: &str| Err(UserError::OutOfRange { text: text.to_owned() });
        let cases = [
            ("", ids(0, 0, &[0, 10])),
            ("root", ids(0, 0, &[0, 10])),
            ("0", ids(0, 0, &[0, 10])),
            ("app", ids(1000, 1001, &[1001, 10, 27])),
            ("1000", ids(1000, 1001, &[1001, 10, 27])),
            ("app:", ids(1000, 1001, &[1001, 10, 27])),
            ("app:video", ids(1000, 27, &[27])),
            ("app:27", ids(1000, 27, &[27])),
            ("app:99", ids(1000, 99, &[99])),
            (":video", ids(0, 27, &[27])),
            ("1234", ids(1234, 0, &[0])),
            ("1234:5678", ids(1234, 5678, &[5678])),
            ("1234:wheel", ids(1234, 10, &[10])),
            ("nohome", ids(7, 8, &[8])),
            ("bad", ids(0, 0, &[0])),
            ("ghost", no_user("ghost")),
            ("app:ghosts", no_group("ghosts")),
            ("-1", out_of_range("-1")),
            ("2147483648", out_of_range("2147483648")),
            ("99999999999999999999999", out_of_range("99999999999999999999999")),
            ("app:-1", out_of_range("-1")),
            ("1000x", no_user("1000x")),
        ];
        for (text, want) in cases {
            assert_eq!(
                resolve(
                    text,
                    UserFiles {
                        passwd: PASSWD,
                        group: GROUP
                    }
                ),
                want,
                "resolving {text:?}"
            );
        }
    }

    #[test]
    fn missing_files_know_numbers_only() {
        assert_eq!(resolve("", UserFiles::default()), ids(0, 0, &[0]));
        assert_eq!(resolve("33", UserFiles::default()), ids(33, 0, &[0]));
        let err = resolve("www", UserFiles::default()).expect_err("no passwd");
        assert_eq!(
            err.to_string(),
            "unable to find user www: no matching entries in passwd file"
        );
    }

    #[test]
    fn home_comes_from_passwd_or_is_the_root() {
        for (uid, want) in [(0, "/root"), (1000, "/home/app"), (7, "/"), (4242, "/")] {
            assert_eq!(home(uid, PASSWD), want, "home of {uid}");
        }
    }
}

//! Which owners files can have on this machine.

/// Ids in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u32,
    count: u32,
}

impl Span {
    fn has(self, id: u32) -> bool {
        id >= self.first && id - self.first < self.count
    }
}

/// The user and group ids that this process's user namespace knows. The kernel neither makes files of other owners nor
/// says whose they are, so those owners stand in trees only: whoever looks at such a file sees root's, and a change that
/// keeps the file keeps its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownIds {
    users: Vec<Span>,
    groups: Vec<Span>,
}

impl KnownIds {
    /// Every id there is, as the machine's own root has it.
    #[must_use]
    pub fn all() -> Self {
        let all = vec![Span {
            first: 0,
            count: u32::MAX,
        }];
        Self {
            users: all.clone(),
            groups: all,
        }
    }

    /// Reads the texts of `/proc/self/uid_map` and `/proc/self/gid_map`; lines that are no ranges are passed over.
    #[must_use]
    pub fn from_maps(uid_map: &str, gid_map: &str) -> Self {
        let spans = |text: &str| {
            let span = |line: &str| {
                let mut fields = line.split_ascii_whitespace();
                let (first, _, count) = (fields.next()?, fields.next()?, fields.next()?);
                Some(Span {
                    first: first.parse().ok()?,
                    count: count.parse().ok()?,
                })
            };
            text.lines().filter_map(span).collect()
        };
        Self {
            users: spans(uid_map),
            groups: spans(gid_map),
        }
    }

    /// Whether no id is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::all()
    }

    /// Whether files can be this user's.
    #[must_use]
    pub fn has_user(&self, uid: u32) -> bool {
        self.users.iter().any(|span| span.has(uid))
    }

    /// Whether files can be this group's.
    #[must_use]
    pub fn has_group(&self, gid: u32) -> bool {
        self.groups.iter().any(|span| span.has(gid))
    }

    /// The owner that is shown for files of this one: root in place of what is missing.
    #[must_use]
    pub fn shown(&self, uid: u32, gid: u32) -> (u32, u32) {
        let uid = if self.has_user(uid) { uid } else { 0 };
        let gid = if self.has_group(gid) { gid } else { 0 };
        (uid, gid)
    }

    /// The owner of a file that was `old`'s and is now found as `found`'s: what is missing here was not changed when it
    /// is still shown as root's.
    #[must_use]
    pub fn kept(&self, old: (u32, u32), found: (u32, u32)) -> (u32, u32) {
        let keep = |known: bool, old: u32, found: u32| if !known && found == 0 { old } else { found };
        (
            keep(self.has_user(old.0), old.0, found.0),
            keep(self.has_group(old.1), old.1, found.1),
        )
    }

    /// The ranges of user ids: first and count.
    pub fn users(&self) -> impl Iterator<Item = (u32, u32)> {
        self.users.iter().map(|span| (span.first, span.count))
    }

    /// The ranges of group ids: first and count.
    pub fn groups(&self) -> impl Iterator<Item = (u32, u32)> {
        self.groups.iter().map(|span| (span.first, span.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_proc_are_read() {
        let whole = "         0          0 4294967295\n";
        assert!(KnownIds::from_maps(whole, whole).is_complete());
        let ids = KnownIds::from_maps("0 1000 1\n1 100000 65536\n", "0 1000 1\nnonsense\n");
        assert!(!ids.is_complete());
        for (uid, known) in [(0, true), (1, true), (65_536, true), (65_537, false), (u32::MAX, false)] {
            assert_eq!(ids.has_user(uid), known, "user {uid}");
        }
        assert!(ids.has_group(0) && !ids.has_group(1));
        assert_eq!(ids.users().collect::<Vec<_>>(), [(0, 1), (1, 65_536)]);
    }

    #[test]
    fn missing_owners_are_shown_as_root_and_kept() {
        let ids = KnownIds::from_maps("0 1000 1\n", "0 1000 1\n");
        assert_eq!(ids.shown(33, 0), (0, 0));
        assert_eq!(ids.kept((33, 42), (0, 0)), (33, 42));
        assert_eq!(ids.kept((0, 42), (0, 0)), (0, 42));
        let all = KnownIds::all();
        assert_eq!(all.shown(33, 7), (33, 7));
        assert_eq!(all.kept((33, 42), (0, 0)), (0, 0));
    }
}

//! Users and groups that a step asks for and that this user namespace does not have.

use cbs_solver::{FailureKind, StepError};
use cbs_store::KnownIds;

use crate::launch::{Ids, MountSource, MountSpec};
use crate::rootless::Standing;

/// Refuses a step that the kernel would refuse with less clear words.
///
/// # Errors
/// Names the first id that is missing, for what it is wanted, and how to have it.
pub(super) fn check(known: &KnownIds, standing: &Standing, user: &Ids, mounts: &[MountSpec]) -> Result<(), StepError> {
    if known.is_complete() {
        return Ok(());
    }
    let files = mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::File(file) => Some((file.uid, file.gid, format!("own `{}`", mount.target.display()))),
        _ => None,
    });
    let process = (user.uid, user.gid, "run the step".to_owned());
    for (uid, gid, purpose) in std::iter::once(process).chain(files) {
        if !known.has_user(uid) {
            return Err(missing(standing, &format!("user {uid}"), &purpose));
        }
        if !known.has_group(gid) {
            return Err(missing(standing, &format!("group {gid}"), &purpose));
        }
    }
    Ok(())
}

/// The error for an owner of a directory that the step is given.
pub(super) fn check_owner(
    known: &KnownIds,
    standing: &Standing,
    owner: (u32, u32),
    what: &str,
) -> Result<(), StepError> {
    let purpose = format!("own {what}");
    if !known.has_user(owner.0) {
        return Err(missing(standing, &format!("user {}", owner.0), &purpose));
    }
    if !known.has_group(owner.1) {
        return Err(missing(standing, &format!("group {}", owner.1), &purpose));
    }
    Ok(())
}

fn missing(standing: &Standing, who: &str, purpose: &str) -> StepError {
    let why = match standing {
        Standing::SingleId { why } => {
            format!(
                "{why}; give this user ranges in `/etc/subuid` and `/etc/subgid` (see newuidmap(1)), or build as root"
            )
        }
        Standing::Root | Standing::Ranges | Standing::Refused { .. } => {
            "the ranges in `/etc/subuid` and `/etc/subgid` end before it; give this user longer ones, or build as root"
                .to_owned()
        }
    };
    StepError::new(
        FailureKind::Unsupported,
        format!("{who}, who is to {purpose}, does not exist in this user namespace: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_who_for_what_and_what_to_do() {
        let known = KnownIds::from_maps("0 1000 1\n", "0 1000 1\n");
        let standing = Standing::SingleId {
            why: "`/etc/subuid` has no range for user 1000".to_owned(),
        };
        let user = |uid, gid| Ids {
            uid,
            gid,
            supplementary: Vec::new(),
        };
        assert!(check(&known, &standing, &user(0, 0), &[]).is_ok());
        let err = check(&known, &standing, &user(33, 0), &[]).expect_err("no such user");
        assert_eq!(
            err.message,
            "user 33, who is to run the step, does not exist in this user namespace: `/etc/subuid` has no range for user \
             1000; give this user ranges in `/etc/subuid` and `/etc/subgid` (see newuidmap(1)), or build as root"
        );
        let secret = MountSpec {
            target: "/run/secrets/s".into(),
            source: MountSource::File(crate::launch::FileSource {
                bytes: b"x".as_slice().into(),
                mode: 0o400,
                uid: 0,
                gid: 5,
            }),
            access: crate::launch::Access::ReadOnly,
        };
        let err = check(&known, &standing, &user(0, 0), std::slice::from_ref(&secret)).expect_err("no such group");
        assert!(
            err.message.starts_with("group 5, who is to own `/run/secrets/s`"),
            "{}",
            err.message
        );
        assert!(check(&KnownIds::all(), &Standing::Root, &user(33, 33), &[secret]).is_ok());
    }
}

//! Owners by name: looked up in the `/etc/passwd` and `/etc/group` of a tree, as BuildKit does.

use std::io::Read;

use cbs_solver::{FailureKind, StepError, pb};
use cbs_store::edit::{Owner, lookup};
use cbs_store::{BlobStore, Node, Store, StoreError, TreeDigest};
use pb::user_opt::User;

use crate::error::{edit_error, invalid};

/// A passwd or group file larger than this is not read.
const LIMIT: u64 = 16 << 20;

/// The owner an op asks for; `trees` are what its name inputs count.
pub(super) fn resolve(
    store: &Store,
    owner: Option<&pb::ChownOpt>,
    trees: &[TreeDigest],
) -> Result<Option<Owner>, StepError> {
    let Some(chown) = owner else { return Ok(None) };
    let mut result = Owner::default();
    match chown.user.as_ref().and_then(|user| user.user.as_ref()) {
        None => {}
        Some(User::ById(id)) => result = Owner { uid: *id, gid: *id },
        Some(User::ByName(named)) => {
            // A name that is not in the file is root's, silently; a tree without the file is an error.
            let passwd = file(store, trees, named, "/etc/passwd", "user")?;
            if let Some((uid, gid)) = find_user(&passwd, &named.name) {
                result = Owner { uid, gid };
            }
        }
    }
    match chown.group.as_ref().and_then(|group| group.user.as_ref()) {
        None => {}
        Some(User::ById(id)) => result.gid = *id,
        Some(User::ByName(named)) => {
            let group = file(store, trees, named, "/etc/group", "group")?;
            // A group that is not in the file leaves the user's own.
            result.gid = find_group(&group, &named.name).unwrap_or(result.gid);
        }
    }
    Ok(Some(result))
}

fn file(
    store: &Store,
    trees: &[TreeDigest],
    named: &pb::NamedUserOpt,
    path: &str,
    what: &str,
) -> Result<Vec<u8>, StepError> {
    let tree = match named.input {
        -1 => None,
        index => Some(
            usize::try_from(index)
                .ok()
                .and_then(|index| trees.get(index))
                .ok_or_else(|| invalid(format!("{what} `{}` is to be found in no input", named.name)))?,
        ),
    };
    let missing = || {
        let message = format!(
            "cannot find {what} `{}`: the image has no {path}; use a number",
            named.name
        );
        StepError::new(FailureKind::NotFound, message)
    };
    let tree = tree.ok_or_else(missing)?;
    read_file(store, tree, path)?.ok_or_else(missing)
}

/// The bytes of a file of a tree; `None` when there is none, or no regular one of reasonable size.
pub(crate) fn read_file(store: &Store, tree: &TreeDigest, path: &str) -> Result<Option<Vec<u8>>, StepError> {
    let Some(entry) = lookup(store, tree, path).map_err(edit_error)? else {
        return Ok(None);
    };
    let Node::File { blob, size, .. } = entry.node else {
        return Ok(None);
    };
    if size > LIMIT {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let opened = store.blob(&blob)?.ok_or(StoreError::MissingBlob(blob))?;
    opened
        .reader()
        .read_to_end(&mut bytes)
        .map_err(|source| StepError::caused(FailureKind::System, format!("cannot read {path}"), source))?;
    Ok(Some(bytes))
}

fn fields(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    let lines = file
        .split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(|line| line.trim().split(':').collect())
}

fn find_user(passwd: &[u8], name: &str) -> Option<(u32, u32)> {
    let line = fields(passwd).find(|line| line.first() == Some(&name) && line.len() >= 4)?;
    Some((line[2].parse().ok()?, line[3].parse().ok()?))
}

fn find_group(group: &[u8], name: &str) -> Option<u32> {
    let line = fields(group).find(|line| line.first() == Some(&name) && line.len() >= 3)?;
    line[2].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_written() {
        let passwd = b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbroken\n";
        assert_eq!(find_user(passwd, "app"), Some((1000, 1001)));
        assert_eq!(find_user(passwd, "nobody"), None);
        assert_eq!(find_group(b"extra:x:2000:app\n", "extra"), Some(2000));
    }
}

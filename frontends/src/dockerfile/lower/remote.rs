//! Sources of ADD that are somewhere else.

use std::collections::BTreeMap;

use cbs_solver::patterns::clean_path;
use cbs_solver::pb;

use super::super::git_ref::{GitRef, unescape};
use super::super::go::quote;
use super::super::source::Complaint;

/// `algorithm:hex` with as many digits as the algorithm makes.
pub(super) fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length
        && hex
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Joins what the flags say about a git source with what its URL says.
pub(super) fn complete_git(mut git: GitRef, keep_git_dir: Option<bool>, checksum: &str) -> Result<GitRef, Complaint> {
    match (keep_git_dir, git.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => {
            return Err(Complaint::new("inconsistent keep-git-dir configuration"));
        }
        (Some(flag), None) => git.keep_git_dir = Some(flag),
        _ => {}
    }
    if !checksum.is_empty() && !git.checksum.is_empty() && git.checksum != checksum {
        let message = format!("checksum mismatch {} != {}", quote(checksum), quote(&git.checksum));
        return Err(Complaint::new(message));
    }
    if git.checksum.is_empty() {
        checksum.clone_into(&mut git.checksum);
    }
    git.mtime.clear();
    Ok(git)
}

/// Whether a source is a download; git repositories over http are none.
pub(super) fn is_http(source: &str) -> bool {
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    is_url && matches!(GitRef::parse(source), Ok(None))
}

/// The source op of a download, and the name of its file: the last part of the URL's path.
pub(super) fn http_source(url: &str, checksum: &str) -> (pb::SourceOp, String) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
    let decoded = unescape(path).unwrap_or_default();
    let cleaned = clean_path(&decoded);
    let file = match cleaned.rsplit('/').next() {
        None | Some("" | ".") => "__unnamed__".to_owned(),
        Some(name) => name.to_owned(),
    };
    let mut attrs = BTreeMap::from([("http.filename".to_owned(), file.clone())]);
    if !checksum.is_empty() {
        attrs.insert("http.checksum".to_owned(), checksum.to_owned());
    }
    (
        pb::SourceOp {
            identifier: url.to_owned(),
            attrs,
        },
        file,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads() {
        let name = |url: &str| http_source(url, "").1;
        assert_eq!(name("http://h/a/b.tar?x=/y"), "b.tar");
        assert_eq!(name("https://h/a%20b/"), "a b");
        assert_eq!(name("http://h"), "__unnamed__");
        assert_eq!(name("http://h/"), "__unnamed__");
    }
}

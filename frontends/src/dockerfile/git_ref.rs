//! Git sources as Docker writes them: `https://host/repo.git#ref:subdir`, `git@host:repo`, and the query form.

use super::go::{self, quote};

/// A git repository and what to take from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRef {
    /// The repository, without fragment and query.
    pub remote: String,
    /// Host and path of the repository, alike for each transport: `github.com/moby/buildkit.git`.
    pub identity: String,
    /// Whether the transport is ssh.
    pub transport: Transport,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// The directory to take; empty for the whole tree.
    pub subdir: String,
    /// The commit that `reference` must be.
    pub checksum: String,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// `checkout` or `commit`: where files take their times from.
    pub mtime: String,
    /// Whether the checksum is fetched without looking at the reference.
    pub fetch_by_commit: Option<bool>,
}

/// How a repository is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// `https://`, `http://` or `git://`.
    #[default]
    Plain,
    /// `ssh://` or `user@host:path`.
    Ssh,
}

/// A text that is meant as a git source and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitRefError {
    /// A query key without a value, or with several.
    #[error("query {} has {problem}", quote(.key))]
    Value {
        /// The key.
        key: String,
        /// What is wrong with its value.
        problem: &'static str,
    },
    /// The value of a query key makes no sense.
    #[error("invalid {key} value: {}", quote(.value))]
    Invalid {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Two parts of the source name different things.
    #[error("{what} conflicts: {} vs {}", quote(.first), quote(.second))]
    Conflict {
        /// What is named twice.
        what: &'static str,
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// A query key that nothing knows.
    #[error("unexpected query {}", quote(.key))]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// The URL cannot be read.
    #[error("invalid git URL {}", quote(.url))]
    Url {
        /// The URL as given.
        url: String,
    },
}

impl GitRef {
    /// Reads a source. `None` when it is no git source: a path, or an `http(s)` URL whose path does not end in `.git`.
    ///
    /// # Errors
    /// [`GitRefError`] when it is one and cannot be read.
    pub fn parse(text: &str) -> Result<Option<Self>, GitRefError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let scheme_end = text
            .find("://")
            .filter(|&end| end > 0 && text[..end].bytes().all(|b| b.is_ascii_alphanumeric()));
        let (mut git, query) = match scheme_end {
            Some(end) => match parse_url(text, end) {
                Some(parts) => parts,
                None => return Ok(None),
            },
            None => match parse_scp(text) {
                Some(parts) => parts,
                None => return Ok(None),
            },
        };
        git.apply_query(&query)?;
        Ok(Some(git))
    }

    /// Reads the main build context: as [`parse`](Self::parse), and also the old `github.com/owner/repo`.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn parse_context(text: &str) -> Result<Option<Self>, GitRefError> {
        if !text.starts_with("github.com/") {
            return Self::parse(text);
        }
        let (path, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut git = Self {
            remote: path.to_owned(),
            identity: path.to_owned(),
            ..Self::default()
        };
        git.apply_fragment(fragment);
        git.apply_query(query)?;
        Ok(Some(git))
    }

    fn apply_fragment(&mut self, fragment: &str) {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        self.reference = reference.to_owned();
        self.subdir = cbs_solver::patterns::clean_path(&format!("/{subdir}"))
            .trim_start_matches('/')
            .to_owned();
    }

    fn apply_query(&mut self, query: &str) -> Result<(), GitRefError> {
        let mut tag = None;
        let mut branch = None;
        let mut seen: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode =
                |part: &str| unescape(&part.replace('+', " ")).ok_or(GitRefError::Url { url: query.to_owned() });
            let (key, value) = (decode(key)?, decode(value)?);
            if seen.contains(&key) {
                return Err(GitRefError::Value {
                    key,
                    problem: "multiple values",
                });
            }
            let is_switch = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_switch {
                return Err(GitRefError::Value {
                    key,
                    problem: "no value",
                });
            }
            let switch = || match value.as_str() {
                "" => Ok(Some(true)),
                text => go::parse_bool(text).map(Some).ok_or_else(|| GitRefError::Invalid {
                    key: key.clone(),
                    value: value.clone(),
                }),
            };
            match key.as_str() {
                "ref" => set("ref", &mut self.reference, &value)?,
                "subdir" => set("subdir", &mut self.subdir, &value)?,
                "tag" => tag = Some(value.clone()),
                "branch" => branch = Some(value.clone()),
                "checksum" | "commit" => self.checksum = value.clone(),
                "keep-git-dir" => self.keep_git_dir = switch()?,
                "submodules" => self.submodules = switch()?,
                "fetch-by-commit" => self.fetch_by_commit = switch()?,
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => self.mtime = value.clone(),
                "mtime" => return Err(GitRefError::Invalid { key, value }),
                _ => return Err(GitRefError::UnknownKey { key }),
            }
            seen.push(key);
        }
        if let (Some(first), Some(second)) = (&tag, &branch) {
            return Err(GitRefError::Conflict {
                what: "ref",
                first: first.clone(),
                second: second.clone(),
            });
        }
        for (prefix, name) in [("refs/tags/", tag), ("refs/heads/", branch)] {
            if let Some(name) = name {
                let full = if name.starts_with(prefix) {
                    name
                } else {
                    format!("{prefix}{name}")
                };
                set("ref", &mut self.reference, &full)?;
            }
        }
        Ok(())
    }
}

fn set(what: &'static str, slot: &mut String, value: &str) -> Result<(), GitRefError> {
    if !slot.is_empty() && slot != value {
        return Err(GitRefError::Conflict {
            what,
            first: slot.clone(),
            second: value.to_owned(),
        });
    }
    *slot = value.to_owned();
    Ok(())
}

/// `scheme://host/path?query#ref:subdir`.
fn parse_url(text: &str, scheme_end: usize) -> Option<(GitRef, String)> {
    let scheme = text[..scheme_end].to_ascii_lowercase();
    let (location, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (location, query) = location.split_once('?').unwrap_or((location, ""));
    let rest = location.get(scheme_end + 3..)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match scheme.as_str() {
        "http" | "https" if !path.ends_with(".git") => return None,
        "http" | "https" | "git" | "ssh" => {}
        _ => return None,
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let mut git = GitRef {
        remote: location.to_owned(),
        identity: format!("{host}{}", cbs_solver::patterns::clean_path(&format!("/{path}"))),
        transport: if scheme == "ssh" {
            Transport::Ssh
        } else {
            Transport::Plain
        },
        ..GitRef::default()
    };
    git.apply_fragment(&unescape(fragment)?);
    Some((git, query.to_owned()))
}

/// `user@host:path?query#ref:subdir`.
fn parse_scp(text: &str) -> Option<(GitRef, String)> {
    let (user, rest) = text.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let is_name = |name: &str, extra: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    if !is_name(user, "-_") || !is_name(host, "-.") {
        return None;
    }
    let (location, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = location.split_once('?').unwrap_or((location, ""));
    let mut git = GitRef {
        remote: format!("{user}@{host}:{path}"),
        identity: format!("{host}{}", cbs_solver::patterns::clean_path(&format!("/{path}"))),
        transport: Transport::Ssh,
        ..GitRef::default()
    };
    git.apply_fragment(fragment);
    Some((git, query.to_owned()))
}

/// Undoes percent escapes; `None` when one is malformed.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?)
                .ok()
                .filter(|d| d.chars().all(|c| c.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GitRef {
        GitRef::parse(text).expect(text).expect(text)
    }

    #[test]
    fn forms() {
        let git = parse("https://github.com/foo/bar.git#baz/qux:quux/../quuz");
        assert_eq!(
            (git.remote.as_str(), git.identity.as_str()),
            ("https://github.com/foo/bar.git", "github.com/foo/bar.git")
        );
        assert_eq!((git.reference.as_str(), git.subdir.as_str()), ("baz/qux", "quuz"));
        let git = parse("git@github.com:moby/buildkit.git#v1");
        assert_eq!(
            (git.remote.as_str(), git.identity.as_str()),
            ("git@github.com:moby/buildkit.git", "github.com/moby/buildkit.git")
        );
        assert_eq!((git.transport, git.reference.as_str()), (Transport::Ssh, "v1"));
        let git = parse("ssh://git@host:22/x?branch=main&keep-git-dir&submodules=false&commit=abc");
        assert_eq!(
            (git.identity.as_str(), git.reference.as_str()),
            ("host:22/x", "refs/heads/main")
        );
        assert_eq!(
            (git.keep_git_dir, git.submodules, git.checksum.as_str()),
            (Some(true), Some(false), "abc")
        );
        assert_eq!(parse("git://h/r?tag=v1").reference, "refs/tags/v1");
    }

    #[test]
    fn not_git() {
        for other in [
            "",
            "./x.git",
            "../x",
            "a/b",
            "https://host/file.tar.gz",
            "ftp://x/y.git",
            "github.com/a/b",
            "user@host",
        ] {
            assert_eq!(GitRef::parse(other), Ok(None), "{other:?}");
        }
        assert!(GitRef::parse_context("github.com/a/b#x").expect("reads").is_some());
    }

    #[test]
    fn bad_queries() {
        for bad in [
            "ref",
            "ref=a&ref=b",
            "what=1",
            "mtime=never",
            "tag=a&branch=b",
            "submodules=perhaps",
        ] {
            assert!(GitRef::parse(&format!("https://h/r.git?{bad}")).is_err(), "{bad}");
        }
        assert!(GitRef::parse("https://h/r.git?ref=a#b").is_err());
    }
}

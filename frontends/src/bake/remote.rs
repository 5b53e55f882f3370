//! Definitions that are fetched: git repositories, and files or archives over HTTP.

use std::io;

use crate::dockerfile::{GitRef, Transport};

/// A definition that is not an archive must not be larger.
pub(crate) const MAX_DEFINITION: usize = 2 << 20;

/// Fetches remote definitions. The caller brings one that knows the network, and its own ways to ask for consent.
pub trait Fetcher: Sync {
    /// Fetches what a URL names: a git repository (see [`GitRef::parse`]), or what a server answers.
    ///
    /// # Errors
    /// When it cannot be fetched.
    fn fetch(&self, url: &str) -> io::Result<Remote>;
}

/// What was fetched.
pub enum Remote {
    /// A repository, of which a sub-folder may have been asked for, or the content of an archive.
    Tree(Box<dyn RemoteTree>),
    /// A single file.
    File(Vec<u8>),
}

/// The files of a repository or an archive.
pub trait RemoteTree {
    /// The content of a file; `None` when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;
}

/// Fetches nothing: for callers that do not allow remote definitions.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFetcher;

impl Fetcher for NoFetcher {
    fn fetch(&self, _: &str) -> io::Result<Remote> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "remote definitions cannot be fetched here",
        ))
    }
}

/// Where a remote definition came from. Relative contexts lie there, too, unless it is a single file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteInput {
    /// A git repository.
    Git {
        /// Its URL, with a reference and a folder if they were given.
        url: String,
    },
    /// An archive.
    Archive {
        /// Its URL.
        url: String,
    },
    /// A single file.
    File {
        /// Its URL.
        url: String,
    },
}

/// Whether a text is an HTTP URL or a git reference.
pub(crate) fn is_remote_url(text: &str) -> bool {
    text.starts_with("https://")
        || text.starts_with("http://")
        || matches!(GitRef::parse_context(text), Ok(Some(_)) | Err(_))
}

/// Whether a URL names a git repository.
pub(crate) fn is_git(text: &str) -> bool {
    matches!(GitRef::parse_context(text), Ok(Some(_)) | Err(_))
}

/// Whether a repository is reached over SSH.
pub(crate) fn is_git_over_ssh(text: &str) -> bool {
    matches!(GitRef::parse(text), Ok(Some(git)) if git.transport == Transport::Ssh)
}

/// A git URL with a sub-folder added; other URLs are left alone.
pub(crate) fn with_subdir(url: &str, subdir: &str) -> String {
    let subdir = super::paths::clean(subdir);
    let Ok(Some(git)) = GitRef::parse_context(url) else {
        return String::from(url);
    };
    if subdir == "." || url.is_empty() {
        return String::from(url);
    }
    let subdir = if git.subdir.is_empty() {
        subdir
    } else {
        super::paths::join(&git.subdir, &subdir)
    };
    if !url.contains('#')
        && let Some((base, query)) = url.split_once('?')
    {
        let mut found = false;
        let fields: Vec<String> = query
            .split('&')
            .map(|field| {
                if field.starts_with("subdir=") {
                    found = true;
                    format!("subdir={}", subdir.replace('/', "%2F"))
                } else {
                    String::from(field)
                }
            })
            .collect();
        if found {
            return format!("{base}?{}", fields.join("&"));
        }
    }
    let (base, fragment) = url.split_once('#').unwrap_or((url, ""));
    let reference = fragment.split_once(':').map_or(fragment, |(reference, _)| reference);
    format!("{base}#{reference}:{subdir}")
}

/// The name of the environment variable, whatever its case, that holds a credential for fetching.
pub(crate) fn credential_variable<'e>(names: impl Iterator<Item = &'e String>, wanted: &str) -> Option<String> {
    let mut names = names;
    names.find(|name| name.eq_ignore_ascii_case(wanted)).cloned()
}

/// The host of a git URL.
pub(crate) fn git_host(url: &str) -> Option<String> {
    let rest = match url.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next()?,
        None => url.split_once('@').and(url.split_once(':')).map(|(host, _)| host)?,
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    (!host.is_empty()).then(|| String::from(host))
}

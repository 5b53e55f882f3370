//! Fetches bake definitions that are elsewhere, by solving their sources like any other.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use cbs_exec::LocalExecutor;
use cbs_frontends::bake::{Fetcher, Remote, RemoteTree};
use cbs_frontends::dockerfile::{BuildOptions, GitRef, MainContext, context_definition};
use cbs_image::platform::Platform;
use cbs_store::{Store, TreeDigest};

use crate::remote::{fetch, read_file, settle_context};
use crate::session::Session;
use crate::sources::Sources;

/// Fetches with the services of a session.
pub(crate) struct SessionFetcher<'a>(pub(crate) &'a Session);

/// Whether a word on the command line names something to fetch.
pub(crate) fn is_remote(word: &str) -> bool {
    let is_http = word.starts_with("https://") || word.starts_with("http://");
    is_http || matches!(GitRef::parse_context(word), Ok(Some(_)) | Err(_))
}

impl Fetcher for SessionFetcher<'_> {
    fn fetch(&self, url: &str) -> io::Result<Remote> {
        self.fetch_url(url).map_err(|err| io::Error::other(format!("{err:#}")))
    }
}

impl SessionFetcher<'_> {
    fn fetch_url(&self, url: &str) -> anyhow::Result<Remote> {
        let session = self.0;
        let executor = LocalExecutor::new(Sources::default().exec_config(session));
        let ctx = session.context(Arc::new(executor));
        let mut options = BuildOptions::new(Platform::host());
        options.context = match GitRef::parse_context(url)? {
            Some(_) => MainContext::Git { url: url.to_owned() },
            None => MainContext::HttpArchive { url: url.to_owned() },
        };
        session.runtime.block_on(async {
            if let Some(data) = settle_context(&mut options, &ctx, &session.store).await? {
                return Ok(Remote::File(data));
            }
            let definition = context_definition(&options)?.context("a remote definition has a source")?;
            let tree = fetch(url, definition, &ctx).await?;
            let store = session.store.clone();
            Ok(Remote::Tree(Box::new(Files { store, tree })))
        })
    }
}

/// A fetched tree.
struct Files {
    store: Store,
    tree: TreeDigest,
}

impl RemoteTree for Files {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        read_file(&self.store, &self.tree, path).map_err(|err| io::Error::other(format!("{err:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_not_fetched() {
        for (word, want) in [
            ("https://example.org/x.hcl", true),
            ("https://example.org/x.git#main:sub", true),
            ("git@example.org:x/y.git", true),
            ("app", false),
            ("app-*", false),
        ] {
            assert_eq!(is_remote(word), want, "{word}");
        }
    }
}

//! The time of a source that is elsewhere: of a git repository that of the commit; of a download what its server says,
//! else that of the newest file in it when it is an archive.

use std::io::Read as _;

use anyhow::Context as _;
use cbs_image::codec::Decoder;
use cbs_solver::llb::{DefinitionBuilder, Edge};
use cbs_solver::{Ctx, pb};
use cbs_store::{BlobStore as _, Directory, DirectoryStore as _, Node, Store, TreeDigest};

use crate::remote::{fetch, is_archive};

/// What is looked at to know an archive.
const HEAD: usize = 512;

/// Fetches a git or http source, and tells its time in seconds since 1970; `None` when it has none.
pub(crate) async fn of_remote(source: pb::SourceOp, ctx: &Ctx, store: &Store) -> anyhow::Result<Option<i64>> {
    let url = source.identifier.clone();
    let op = pb::Op {
        op: Some(pb::op::Op::Source(source)),
        ..Default::default()
    };
    let mut builder = DefinitionBuilder::default();
    let vertex = builder.add(&op, pb::OpMetadata::default());
    let tree = fetch(&url, builder.definition(Some(Edge::first(vertex))), ctx).await?;
    let (store, is_git) = (store.clone(), url.starts_with("git://"));
    tokio::task::spawn_blocking(move || {
        let root = directory(&store, &tree)?;
        let first = root.entries.first();
        if is_git {
            // All files of a checkout have the commit's time.
            return Ok(first.map(|entry| entry.meta.mtime.seconds));
        }
        match first {
            Some(entry) if entry.meta.mtime.seconds != 0 => Ok(Some(entry.meta.mtime.seconds)),
            Some(entry) => newest(&store, &entry.node),
            None => Ok(None),
        }
    })
    .await?
}

fn directory(store: &Store, tree: &TreeDigest) -> anyhow::Result<Directory> {
    let found = store.directory(tree)?;
    Ok(found
        .with_context(|| format!("tree {tree} is not in the store"))?
        .as_ref()
        .clone())
}

/// The time of the newest file of an archive.
fn newest(store: &Store, node: &Node) -> anyhow::Result<Option<i64>> {
    let Node::File { blob, .. } = node else {
        return Ok(None);
    };
    let open = || anyhow::Ok(store.blob(blob)?.context("a download is not in the store")?.reader());
    let mut head = Vec::new();
    open()?.take(HEAD as u64).read_to_end(&mut head)?;
    if !is_archive(&head) {
        return Ok(None);
    }
    let mut archive = tar::Archive::new(Decoder::new(open()?)?);
    let mut newest = None;
    for entry in archive.entries()? {
        let time = i64::try_from(entry?.header().mtime()?).unwrap_or(i64::MAX);
        newest = newest.max(Some(time));
    }
    Ok(newest)
}

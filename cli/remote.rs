//! What must be fetched before a build can be lowered: contexts that are downloads, and the Dockerfiles in them.

use std::io::Read as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cbs_frontends::dockerfile::{BuildOptions, MainContext, context_definition};
use cbs_solver::llb::{DefinitionBuilder, Edge};
use cbs_solver::{Ctx, Graph, Need, Request, pb, solve};
use cbs_store::edit::lookup;
use cbs_store::{Blob, BlobStore as _, Node, Store, TreeDigest};

use crate::failure;
use crate::session::SolveSettings;
use crate::target::DockerfileText;

/// The name under which the frontend has a download kept.
const DOWNLOADED: &str = "context";
/// Larger Dockerfiles are none.
const MAX_DOCKERFILE: u64 = 16 << 20;
/// What is looked at to know an archive.
const HEAD: u64 = 512;

/// Finds out whether a download that is the main context is an archive or a Dockerfile.
pub(crate) async fn settle_context(
    options: &mut BuildOptions,
    ctx: &Ctx,
    store: &Store,
) -> anyhow::Result<Option<Vec<u8>>> {
    let MainContext::HttpArchive { url } = &options.context else {
        return Ok(None);
    };
    let url = url.clone();
    let mut as_file = options.clone();
    as_file.context = MainContext::HttpFile { url: url.clone() };
    let definition = context_definition(&as_file)?.context("a download has a definition")?;
    let tree = fetch(&url, definition, ctx).await?;
    let missing = || format!("{url} gave no file");
    let (blob, _) = open_file(store, &tree, DOWNLOADED)?.with_context(missing)?;
    let mut head = Vec::new();
    blob.reader().take(HEAD).read_to_end(&mut head)?;
    if is_archive(&head) {
        return Ok(None);
    }
    options.context = as_file.context;
    read_file(store, &tree, DOWNLOADED)
}

/// The Dockerfile of a context that is not on this machine.
pub(crate) async fn dockerfile_of_context(
    options: &mut BuildOptions,
    path: &str,
    ctx: &Ctx,
    store: &Store,
) -> anyhow::Result<DockerfileText> {
    if let Some(data) = settle_context(options, ctx, store).await? {
        // A download that is no archive is the Dockerfile.
        return Ok(DockerfileText {
            name: "Dockerfile".to_owned(),
            data,
            ignore: None,
        });
    }
    let definition = context_definition(options)?.context("a remote context has a definition")?;
    let tree = fetch("the context", definition, ctx).await?;
    let path = match &options.context_subdir {
        Some(folder) => format!("{folder}/{path}"),
        None => path.to_owned(),
    };
    let data = read_file(store, &tree, &path)?;
    Ok(DockerfileText {
        data: data.with_context(|| format!("cannot read the Dockerfile `{path}`: the context has no such file"))?,
        name: path,
        ignore: None,
    })
}

/// A Dockerfile that is downloaded by itself.
pub(crate) async fn dockerfile_of_url(url: &str, ctx: &Ctx, store: &Store) -> anyhow::Result<DockerfileText> {
    let mut builder = DefinitionBuilder::default();
    let source = pb::SourceOp {
        identifier: url.to_owned(),
        attrs: [("http.filename".to_owned(), DOWNLOADED.to_owned())].into(),
    };
    let op = pb::Op {
        op: Some(pb::op::Op::Source(source)),
        ..Default::default()
    };
    let vertex = builder.add(&op, Default::default());
    let tree = fetch(url, builder.definition(Some(Edge::first(vertex))), ctx).await?;
    Ok(DockerfileText {
        data: read_file(store, &tree, DOWNLOADED)?.with_context(|| format!("{url} gave no file"))?,
        name: url.to_owned(),
        ignore: None,
    })
}

/// Solves a definition that only fetches.
pub(crate) async fn fetch(name: &str, definition: pb::Definition, ctx: &Ctx) -> anyhow::Result<TreeDigest> {
    let request = Request {
        name: name.to_owned(),
        definition,
    };
    let graph = Arc::new(Graph::build(&[request])?);
    let result = solve(ctx, &graph, &SolveSettings::plain().config(Need::Tree)).await;
    let result = result.map_err(failure::of_solve)?;
    let snapshot = result.targets.into_iter().next().and_then(|target| target.snapshot);
    Ok(snapshot.with_context(|| format!("{name} is empty"))?.tree)
}

/// A file of a tree, links followed; `None` when there is none.
pub(crate) fn read_file(store: &Store, tree: &TreeDigest, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let Some((blob, size)) = open_file(store, tree, path)? else {
        return Ok(None);
    };
    if size > MAX_DOCKERFILE {
        bail!("`{path}` is {size} bytes long, which is too much for a Dockerfile");
    }
    let mut data = Vec::new();
    blob.reader().read_to_end(&mut data)?;
    Ok(Some(data))
}

fn open_file(store: &Store, tree: &TreeDigest, path: &str) -> anyhow::Result<Option<(Blob, u64)>> {
    let Some(entry) = lookup(store, tree, path)? else {
        return Ok(None);
    };
    let Node::File { blob, size, .. } = entry.node else {
        return Ok(None);
    };
    let found = store.blob(&blob)?;
    Ok(Some((
        found.with_context(|| format!("blob {blob} is not in the store"))?,
        size,
    )))
}

/// Whether bytes are a tar, perhaps a compressed one.
pub(crate) fn is_archive(data: &[u8]) -> bool {
    const MAGICS: [&[u8]; 4] = [
        &[0x1f, 0x8b, 8],
        b"BZh",
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ];
    MAGICS.iter().any(|magic| data.starts_with(magic)) || data.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_first_bytes() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (data, want) in [
            (&tar[..], true),
            (b"\x1f\x8b\x08 rest", true),
            (b"FROM scratch\n", false),
            (b"", false),
        ] {
            assert_eq!(is_archive(data), want, "{data:?}");
        }
    }
}

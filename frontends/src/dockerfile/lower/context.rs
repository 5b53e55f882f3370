//! The main build context, and git sources in general.

use std::collections::BTreeMap;

use cbs_solver::pb;

use super::super::git_ref::{GitRef, GitRefError, Transport};
use super::super::go::parse_bool;
use super::super::options::{BuildOptions, MainContext};
use super::super::source::SourceFile;
use super::Convert;
use super::graph::{FileStep, Graph, LocalSource, NONE, NodeId, NodeOp, named};

/// The name a downloaded context has inside its source.
const DOWNLOADED: &str = "context";

/// The source op of a git repository. `None` when the text names none.
pub(super) fn git_source(
    text: &str,
    keep_git_dir: Option<bool>,
    mtime: Option<&str>,
) -> Result<Option<pb::SourceOp>, GitRefError> {
    let Some(mut git) = GitRef::parse_context(text)? else {
        return Ok(None);
    };
    if keep_git_dir == Some(true) {
        git.keep_git_dir = Some(true);
    }
    if let (true, Some(mtime)) = (git.mtime.is_empty(), mtime) {
        mtime.clone_into(&mut git.mtime);
    }
    Ok(Some(git_op(&git)))
}

/// The source op of a parsed git source.
pub(super) fn git_op(git: &GitRef) -> pb::SourceOp {
    let mut identifier = format!("git://{}", git.identity);
    if !git.reference.is_empty() || !git.subdir.is_empty() {
        identifier.push_str(&format!("#{}", git.reference));
        if !git.subdir.is_empty() {
            identifier.push_str(&format!(":{}", git.subdir));
        }
    }
    let mut attrs = BTreeMap::new();
    let mut set = |name: &str, value: &str| attrs.insert(format!("git.{name}"), value.to_owned());
    if git.keep_git_dir == Some(true) {
        set("keepgitdir", "true");
    }
    let has_scheme = git.remote.contains("://") || git.transport == Transport::Ssh;
    let remote = if has_scheme {
        git.remote.clone()
    } else {
        format!("https://{}", git.remote)
    };
    set("fullurl", &remote);
    set("authtokensecret", "GIT_AUTH_TOKEN");
    set("authheadersecret", "GIT_AUTH_HEADER");
    if git.transport == Transport::Ssh {
        set("mountsshsock", "default");
    }
    if !git.checksum.is_empty() {
        set("checksum", &git.checksum);
    }
    if git.submodules == Some(false) {
        set("skipsubmodules", "true");
    }
    if !git.mtime.is_empty() {
        set("mtime", &git.mtime);
    }
    if git.fetch_by_commit == Some(true) {
        set("fetchbycommit", "true");
    }
    pb::SourceOp { identifier, attrs }
}

/// The definition of a remote main context, from which the caller reads the Dockerfile before anything is lowered.
/// `None` for a local one.
///
/// # Errors
/// [`GitRefError`] when the URL of a git context cannot be read.
pub fn context_definition(options: &BuildOptions) -> Result<Option<pb::Definition>, GitRefError> {
    if matches!(options.context, MainContext::Local { .. }) {
        return Ok(None);
    }
    let mut graph = Graph::default();
    let node = remote_context(options, &mut graph)?;
    let nothing = SourceFile::new("", b"");
    // Only a malformed input definition fails here, and lowering reports that.
    Ok(graph
        .definitions(&[node], &nothing)
        .ok()
        .and_then(|definitions| definitions.into_iter().next()))
}

/// The source op of the main context, when it is a plain source.
///
/// # Errors
/// [`GitRefError`] when the URL of a git context cannot be read.
pub fn context_source(options: &BuildOptions) -> Result<Option<pb::SourceOp>, GitRefError> {
    Ok(match &options.context {
        MainContext::Local { name } => Some(local(options, name, Vec::new()).to_source()),
        MainContext::Git { url } => {
            let keep = options
                .build_args
                .get("BUILDKIT_CONTEXT_KEEP_GIT_DIR")
                .and_then(|value| parse_bool(value));
            let epoch = options
                .build_args
                .get("SOURCE_DATE_EPOCH")
                .is_some_and(|value| !value.is_empty());
            git_source(url, keep, epoch.then_some("commit"))?
        }
        MainContext::HttpArchive { url } | MainContext::HttpFile { url } => {
            let attrs = BTreeMap::from([("http.filename".to_owned(), DOWNLOADED.to_owned())]);
            Some(pb::SourceOp {
                identifier: url.clone(),
                attrs,
            })
        }
        MainContext::Input { .. } => None,
    })
}

fn local(options: &BuildOptions, name: &str, exclude: Vec<String>) -> LocalSource {
    LocalSource {
        name: name.to_owned(),
        session: options.local_sessions.get(name).cloned(),
        shared_key_hint: name.to_owned(),
        exclude,
        ..LocalSource::default()
    }
}

/// Nodes of a main context that is no directory of the caller.
fn remote_context(options: &BuildOptions, graph: &mut Graph) -> Result<Option<NodeId>, GitRefError> {
    let source = context_source(options)?;
    let node = match (&options.context, source) {
        (MainContext::Input { definition }, _) => {
            let is_empty = definition.def.is_empty();
            let op = NodeOp::Input(Box::new(definition.clone()));
            (!is_empty).then(|| graph.add(op, pb::OpMetadata::default(), None))
        }
        (MainContext::Git { url }, Some(source)) => {
            let name = named(format!("[internal] load git source {url}"));
            Some(graph.add(NodeOp::Source { source, platform: None }, name, None))
        }
        (MainContext::Git { url }, None) => return Err(GitRefError::Url { url: url.clone() }),
        (context, Some(source)) => {
            let name = named("[internal] load remote build context");
            let file = graph.add(NodeOp::Source { source, platform: None }, name, None);
            match context {
                MainContext::HttpArchive { .. } => {
                    let copy = pb::FileActionCopy {
                        src: format!("/{DOWNLOADED}"),
                        dest: "/".to_owned(),
                        mode: -1,
                        attempt_unpack_docker_compatibility: true,
                        timestamp: NONE,
                        ..Default::default()
                    };
                    Some(copy_out(graph, Some(file), copy))
                }
                _ => Some(file),
            }
        }
        (_, None) => None,
    };
    Ok(match &options.context_subdir {
        None => node,
        Some(dir) => {
            let copy = pb::FileActionCopy {
                src: cbs_solver::patterns::clean_path(&format!("/{dir}")),
                dest: "/".to_owned(),
                mode: -1,
                dir_copy_contents: true,
                timestamp: NONE,
                ..Default::default()
            };
            Some(copy_out(graph, node, copy))
        }
    })
}

/// Copies out of a tree into an empty one.
fn copy_out(graph: &mut Graph, source: Option<NodeId>, copy: pb::FileActionCopy) -> NodeId {
    let step = FileStep {
        source,
        action: pb::file_action::Action::Copy(copy),
    };
    graph.add(
        NodeOp::File {
            base: None,
            actions: vec![step],
        },
        pb::OpMetadata::default(),
        None,
    )
}

impl Convert<'_> {
    /// The node of the main context. A local one is asked for the paths that turn out to be used.
    pub(super) fn main_context(&mut self) -> NodeId {
        if let Some(node) = self.main_context {
            return node;
        }
        let options = self.input.options;
        let node = match &options.context {
            MainContext::Local { name } => {
                let source = local(options, name, self.ignore_patterns.clone());
                Some(
                    self.graph
                        .add(NodeOp::Local(source), named("[internal] load build context"), None),
                )
            }
            _ => match remote_context(options, &mut self.graph) {
                Ok(node) => node,
                Err(error) => {
                    self.note::<()>(Err(super::Complaint::new(error.to_string())));
                    None
                }
            },
        };
        // An empty context still is a source to copy from: an empty tree.
        let node = node.unwrap_or_else(|| {
            let empty = pb::Definition::default();
            self.graph
                .add(NodeOp::Input(Box::new(empty)), pb::OpMetadata::default(), None)
        });
        self.main_context = Some(node);
        node
    }
}

//! COPY and ADD.

use cbs_solver::patterns::clean_path;
use cbs_solver::{llb, pb};

use super::super::ast::{Head, Transfer, Word};
use super::super::git_ref::GitRef;
use super::super::go::quote;
use super::super::lint::{LintRule, is_root_ignored};
use super::super::shell::{Quotes, Shell};
use super::super::source::Complaint;
use super::Convert;
use super::context::git_op;
use super::graph::{FileStep, NONE, NodeId, NodeOp, named};
use super::mode::{chmod, owner};
use super::paths::{self, Trailing};
use super::remote::{complete_git, http_source, is_digest, is_http};
use super::state::{Layer, StageId, StageState};

/// A COPY or ADD on its way.
pub(super) struct Transferring<'t> {
    pub(super) head: &'t Head,
    pub(super) transfer: &'t Transfer,
    pub(super) which: Which<'t>,
}

pub(super) enum Which<'t> {
    Copy {
        from: Option<StageId>,
        parents: bool,
    },
    Add {
        keep_git_dir: Option<bool>,
        checksum: Option<&'t Word>,
        unpack: Option<bool>,
    },
}

/// A COPY or ADD with its variables expanded.
struct Expanded {
    sources: Vec<String>,
    documents: Vec<(String, Vec<u8>)>,
    destination: String,
    chown: String,
    chmod: String,
    checksum: String,
}

impl<'a> Convert<'a> {
    pub(super) fn transfer(&mut self, stage: &mut StageState<'a>, cmd: &Transferring<'_>) -> Result<(), Complaint> {
        let expanded = self.expand_transfer(stage, cmd)?;
        let os = stage.platform_or(&self.target).os.clone();
        let windows = |reason: String| Complaint::new(format!("removing drive letter: {reason}"));
        let destination = paths::destination(&stage.dir, &expanded.destination, &os).map_err(windows)?;
        let (mode, mode_str) = chmod(&expanded.chmod).map_err(|message| {
            let complaint = Complaint::new(message);
            cmd.transfer
                .chmod
                .iter()
                .fold(complaint, |complaint, word| complaint.at(word.span))
        })?;
        check_checksum(cmd, &expanded)?;
        let copy = pb::FileActionCopy {
            dest: destination,
            owner: (!expanded.chown.is_empty()).then(|| owner(&expanded.chown)),
            mode,
            mode_str,
            exclude_patterns: cmd.transfer.exclude.clone(),
            create_dest_path: true,
            timestamp: NONE,
            ..Default::default()
        };
        let shown = self.shown_code(cmd.head, &stage.env);
        let name = self.step_name(stage, &shown);
        let mut steps = Vec::new();
        for (source, word) in expanded.sources.iter().zip(&cmd.transfer.sources) {
            let step = self.source_step(cmd, &expanded, source, &copy, &name, &os);
            steps.push(step.map_err(|complaint| complaint.at(word.span))?);
        }
        for (path, data) in &expanded.documents {
            let node = self.inline_document(path, 0o644, data.clone());
            let copy = pb::FileActionCopy {
                src: clean_path(&format!("/{path}")),
                ..copy.clone()
            };
            steps.push(step(Some(node), copy));
        }
        self.use_paths(cmd, &expanded);
        let mut metadata = named(name.clone());
        metadata.ignore_cache = stage.ignore_cache;
        // A mode set on the way would be lost on directories that the layer below has.
        stage.root = Some(if cmd.transfer.link && expanded.chmod.is_empty() {
            self.link_copy(stage, cmd, steps, metadata, &shown)
        } else {
            self.graph.add(
                NodeOp::File {
                    base: stage.root,
                    actions: steps,
                },
                metadata,
                Some(cmd.head.lines),
            )
        });
        stage.commit(history_text(cmd, &expanded), Layer::Yes, self.epoch);
        Ok(())
    }

    fn expand_transfer(&mut self, stage: &StageState<'_>, cmd: &Transferring<'_>) -> Result<Expanded, Complaint> {
        let transfer = cmd.transfer;
        let mut optional = |word: Option<&Word>| match word {
            None => Ok(String::new()),
            Some(word) => self
                .expand(stage, cmd.head, &word.value)
                .map_err(|complaint| complaint.at(word.span)),
        };
        let chown = optional(transfer.chown.as_ref())?;
        let chmod = optional(transfer.chmod.as_ref())?;
        let checksum = match &cmd.which {
            Which::Add { checksum, .. } => optional(*checksum)?,
            Which::Copy { .. } => String::new(),
        };
        let sources = transfer
            .sources
            .iter()
            .map(|word| optional(Some(word)))
            .collect::<Result<_, _>>()?;
        let destination = optional(Some(&transfer.destination))?;
        let raw = Shell {
            quotes: Quotes::Ignore,
            ..Shell::new('\\')
        };
        let mut documents = Vec::new();
        for document in &transfer.documents {
            let mut data = document.chomped();
            if document.expand {
                let text = String::from_utf8_lossy(&data).into_owned();
                data = self.expand_with(raw, stage, cmd.head, &text)?.text.into_bytes();
            }
            documents.push((document.name.clone(), data));
        }
        Ok(Expanded {
            sources,
            documents,
            destination,
            chown,
            chmod,
            checksum,
        })
    }

    /// The action that copies one source: a git repository, a download, or paths of a tree.
    fn source_step(
        &mut self,
        cmd: &Transferring<'_>,
        expanded: &Expanded,
        source: &str,
        copy: &pb::FileActionCopy,
        name: &str,
        os: &str,
    ) -> Result<FileStep, Complaint> {
        let git = GitRef::parse(source).map_err(|error| Complaint::new(error.to_string()))?;
        match (git, &cmd.which) {
            (Some(_), Which::Copy { .. }) => Err(Complaint::new("source can't be a git ref for COPY")),
            (Some(git), Which::Add { keep_git_dir, .. }) => {
                let git = complete_git(git, *keep_git_dir, &expanded.checksum)?;
                let op = NodeOp::Source {
                    source: git_op(&git),
                    platform: None,
                };
                let node = self.graph.add(op, named(name), Some(cmd.head.lines));
                Ok(step(
                    Some(node),
                    pb::FileActionCopy {
                        src: "/".to_owned(),
                        ..copy.clone()
                    },
                ))
            }
            (None, Which::Copy { .. }) if is_http(source) => Err(Complaint::new("source can't be a URL for COPY")),
            (None, Which::Add { unpack, .. }) if is_http(source) => {
                let (op, file) = http_source(source, &expanded.checksum);
                let node = self.graph.add(
                    NodeOp::Source {
                        source: op,
                        platform: None,
                    },
                    named(name),
                    Some(cmd.head.lines),
                );
                let copy = pb::FileActionCopy {
                    src: clean_path(&format!("/{file}")),
                    attempt_unpack_docker_compatibility: unpack.unwrap_or(false),
                    ..copy.clone()
                };
                Ok(step(Some(node), copy))
            }
            (None, which) => {
                let (tree, parents) = match which {
                    Which::Copy {
                        from: Some(from),
                        parents,
                    } => (self.stage_tree(*from)?, *parents),
                    Which::Copy { from: None, parents } => (Some(self.main_context()), *parents),
                    Which::Add { .. } => (Some(self.main_context()), false),
                };
                let unpack = match which {
                    Which::Copy { .. } => false,
                    Which::Add { unpack, .. } => unpack.unwrap_or(true),
                };
                self.check_ignored(cmd, source);
                let windows = |reason: String| Complaint::new(format!("removing drive letter: {reason}"));
                let mut copy = pb::FileActionCopy {
                    follow_symlink: true,
                    dir_copy_contents: true,
                    attempt_unpack_docker_compatibility: unpack,
                    allow_wildcard: true,
                    allow_empty_wildcard: true,
                    ..copy.clone()
                };
                let mut path = source.to_owned();
                if parents {
                    let pattern;
                    (path, pattern) = match source.split_once("/./") {
                        Some((parent, pattern)) => (parent.to_owned(), pattern.to_owned()),
                        None => ("/".to_owned(), source.to_owned()),
                    };
                    let pattern = paths::normalize("/", &pattern, os, Trailing::Drop).map_err(windows)?;
                    // A path without wildcards must be there.
                    if !has_wildcards(&path) && !has_wildcards(&pattern) {
                        let required = clean_path(&format!("{path}/{pattern}"));
                        copy.required_paths =
                            vec![paths::normalize("/", &required, os, Trailing::Drop).map_err(windows)?];
                    }
                    copy.include_patterns = vec![pattern.strip_prefix('/').unwrap_or(&pattern).to_owned()];
                }
                let path = paths::normalize("/", &path, os, Trailing::Drop).map_err(windows)?;
                Ok(step(
                    tree,
                    pb::FileActionCopy {
                        src: clean_path(&path),
                        ..copy
                    },
                ))
            }
        }
    }

    fn stage_tree(&self, from: StageId) -> Result<Option<NodeId>, Complaint> {
        let source = &self.stages[from.0];
        if !source.dispatched {
            let name = quote(source.display_name());
            let message = format!("cannot copy from stage {name}, it needs to be defined before current stage");
            return Err(Complaint::new(message));
        }
        Ok(source.root)
    }

    /// Copies into an empty tree and lays that over the stage's, so that a new base does not mean copying anew.
    fn link_copy(
        &mut self,
        stage: &StageState<'_>,
        cmd: &Transferring<'_>,
        steps: Vec<FileStep>,
        mut metadata: pb::OpMetadata,
        shown: &str,
    ) -> NodeId {
        let lines = Some(cmd.head.lines);
        let name = self.current_step_name(stage, shown, &stage.env);
        // The two vertices are one step to people. The group only must differ from that of other steps.
        let group = format!("link {} {} {name}", self.target, stage.id.0);
        let group = pb::ProgressGroup {
            id: llb::VertexDigest::of(group.as_bytes()).to_string(),
            name,
            weak: true,
        };
        metadata.progress_group = Some(group.clone());
        let copied = self.graph.add(
            NodeOp::File {
                base: None,
                actions: steps,
            },
            metadata.clone(),
            lines,
        );
        let Some(base) = stage.root else { return copied };
        let link_name = self.current_step_name(stage, &format!("LINK {shown}"), &stage.env);
        metadata.description = named(link_name).description;
        metadata.progress_group = Some(pb::ProgressGroup { weak: false, ..group });
        self.graph.add(NodeOp::Merge(vec![base, copied]), metadata, lines)
    }

    /// Notes which paths of a context or a stage are used.
    fn use_paths(&mut self, cmd: &Transferring<'_>, expanded: &Expanded) {
        let used = |source: &&String| GitRef::parse(source).ok().flatten().is_none() && !is_http(source);
        let paths: Vec<String> = expanded
            .sources
            .iter()
            .filter(used)
            .map(|source| clean_path(&format!("/{source}")))
            .collect();
        match cmd.which {
            Which::Copy { from: Some(from), .. } => {
                let owner = self.paths_owner(from);
                self.used_paths.entry(owner).or_default().extend(paths);
            }
            Which::Copy { from: None, .. } | Which::Add { .. } => self.context_paths.extend(paths),
        }
    }

    fn check_ignored(&mut self, cmd: &Transferring<'_>, source: &str) {
        if matches!(cmd.which, Which::Copy { from: Some(_), .. }) {
            return;
        }
        // With exceptions in the list, nothing can be told without looking at the files.
        let Some(ignored) = self.ignored.as_ref().filter(|ignored| !ignored.has_exclusions()) else {
            return;
        };
        let path = clean_path(source);
        if matches!(path.as_str(), "." | "/") && !is_root_ignored(ignored) {
            return;
        }
        if ignored.matches(&path) {
            let verb = if matches!(cmd.which, Which::Add { .. }) {
                "Add"
            } else {
                "Copy"
            };
            let detail = format!(
                "Attempting to {verb} file {} that is excluded by .dockerignore",
                quote(&path)
            );
            self.linter
                .warn(&cmd.head.comments, LintRule::CopyIgnoredFile, cmd.head.lines, detail);
        }
    }
}

fn step(source: Option<NodeId>, copy: pb::FileActionCopy) -> FileStep {
    FileStep {
        source,
        action: pb::file_action::Action::Copy(copy),
    }
}

fn history_text(cmd: &Transferring<'_>, expanded: &Expanded) -> String {
    let mut words = Vec::new();
    match &cmd.which {
        Which::Add { .. } => words.push("ADD".to_owned()),
        Which::Copy { parents: false, .. } => words.push("COPY".to_owned()),
        Which::Copy { parents: true, .. } => words.push("COPY --parents".to_owned()),
    }
    for (flag, value) in [("chown", &expanded.chown), ("chmod", &expanded.chmod)] {
        if !value.is_empty() {
            words.push(format!("--{flag}={value}"));
        }
    }
    words.extend(expanded.sources.iter().cloned());
    words.extend(expanded.documents.iter().map(|(name, _)| format!("<<{name}")));
    words.push(expanded.destination.clone());
    words.push("# buildkit".to_owned());
    words.join(" ")
}

fn check_checksum(cmd: &Transferring<'_>, expanded: &Expanded) -> Result<(), Complaint> {
    let Which::Add {
        checksum: Some(word), ..
    } = &cmd.which
    else {
        return Ok(());
    };
    if expanded.checksum.is_empty() {
        return Ok(());
    }
    let complain = |message: String| Err(Complaint::new(message).at(word.span));
    let [source] = expanded.sources.as_slice() else {
        return complain("checksum can't be specified for multiple sources".to_owned());
    };
    let is_git = !matches!(GitRef::parse(source), Ok(None));
    if !is_http(source) && !is_git {
        return complain("checksum requires HTTP(S) or Git sources".to_owned());
    }
    if !is_git && !is_digest(&expanded.checksum) {
        return complain(format!(
            "invalid checksum digest format: {}; there are sha256, sha384 or sha512, each with a colon and its \
             hexadecimal digits",
            expanded.checksum
        ));
    }
    Ok(())
}

/// Whether a path holds a wildcard that no backslash protects.
fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

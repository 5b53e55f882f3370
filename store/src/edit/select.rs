//! What a copy takes from its source tree: one walker for the copy itself and for the cache key over it.
//!
//! ```text
//! Selection ─ find ─► sources (wildcards, links followed) ─ patterns ─► whole subtrees, or parts of them
//!                                                            ├─ copy.rs puts them into the destination
//!                                                            └─ select_digest hashes their contents
//! ```
//! A subtree that no pattern cuts is never entered: its reference, with its content digest, is all that is needed.

use super::draft::{Draft, Names, join};
use super::{EditError, LastLink};
use crate::deep::deep;
use crate::patterns::{Below, FilterState, Glob, PathFilter, clean_path};
use crate::{Directory, DirectoryRef, DirectoryStore, Entry, KeyHasher, Metadata, Node, TreeDigest, hash_content};

/// What to take: the source side of BuildKit's copy action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection<'a> {
    /// The path, or with `allow_wildcard` a pattern as Go's `filepath.Match` reads it.
    pub src: &'a str,
    /// Follows a source that is a symbolic link, within its root. Links inside a copied directory are never followed.
    pub follow_symlink: bool,
    /// A directory stands for what it holds; its own name and metadata are not taken.
    pub dir_copy_contents: bool,
    /// `*`, `?` and `[` in `src` are special.
    pub allow_wildcard: bool,
    /// A pattern that matches nothing is no error.
    pub allow_empty_wildcard: bool,
    /// When not empty: only what one of these matches, relative to the source directory.
    pub include: &'a [String],
    /// Not what the last matching one of these says (`!` takes back), relative to the source directory.
    pub exclude: &'a [String],
    /// Absolute source paths that must be among what is taken.
    pub required_paths: &'a [String],
}

/// One thing that a [`Selection`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is in the source tree, links resolved, without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// The thing. Its name is the one it gets inside a destination directory: the last name as written or matched, of
    /// a followed link the link's. Empty for the root and for paths that end in `/.`.
    pub entry: Entry,
    /// Its path as written or matched.
    pub(super) written: Names,
    /// Its path below the part of the pattern that has no wildcard; empty when there is none.
    matched: Vec<u8>,
}

/// What is taken of a directory.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    /// All of it.
    Whole,
    /// These entries, in order of their names.
    Part(Vec<TakenEntry>),
}

/// An entry of a directory that is taken in part.
#[derive(Clone, Debug)]
pub(super) struct TakenEntry {
    pub(super) entry: Entry,
    /// Whether it was selected itself, or is a directory that only something below asks for.
    pub(super) selected: bool,
    /// For directories.
    pub(super) below: Taken,
}

/// Finds what a selection names, in walking order, before its patterns.
///
/// # Errors
/// [`EditError::NotFound`] when there is nothing, [`EditError::Pattern`], and failures to resolve the path.
pub fn find_sources(
    trees: &dyn DirectoryStore,
    root: &TreeDigest,
    selection: &Selection<'_>,
) -> Result<Vec<Source>, EditError> {
    find_in(&Draft::new(trees, *root), selection)
}

/// [`find_sources`] in a tree that is being edited.
pub(super) fn find_in(draft: &Draft<'_>, selection: &Selection<'_>) -> Result<Vec<Source>, EditError> {
    let last = if selection.follow_symlink {
        LastLink::Follow
    } else {
        LastLink::Keep
    };
    let cleaned = clean_path(&format!("/{}", selection.src));
    let names: Vec<&str> = cleaned.split('/').filter(|name| !name.is_empty()).collect();
    let plain = names
        .iter()
        .position(|name| selection.allow_wildcard && has_wildcards(name))
        .unwrap_or(names.len());
    let (base, globs) = names.split_at(plain);
    let base: Names = base.iter().map(|name| name.as_bytes().to_vec()).collect();
    if globs.is_empty() {
        let mut source = source_at(draft, base, Vec::new(), last)?;
        if !selection.allow_wildcard && (selection.src == "." || selection.src.ends_with("/.")) {
            source.entry.name.clear();
        }
        return Ok(vec![source]);
    }
    let globs = globs
        .iter()
        .map(|glob| Glob::new(glob))
        .collect::<Result<Vec<Glob>, _>>()?;
    let (resolved, _, node) = draft.resolve_existing(&join(&base), last)?;
    let mut matches = Vec::new();
    if let Node::Directory(_) = node {
        match_names(draft, &globs, &mut resolved.clone(), &mut matches)?;
    }
    if matches.is_empty() && !selection.allow_empty_wildcard {
        return Err(EditError::NotFound {
            path: cleaned.into_bytes(),
        });
    }
    matches
        .into_iter()
        .map(|path| {
            let found = &path[resolved.len()..];
            let (matched, written) = (join(found), [&base, found].concat());
            let mut source = source_at(draft, path, matched, last)?;
            source.written = written;
            Ok(source)
        })
        .collect()
}

/// Whether a name has an unescaped wildcard.
fn has_wildcards(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

fn source_at(draft: &Draft<'_>, path: Names, matched: Vec<u8>, last: LastLink) -> Result<Source, EditError> {
    let (resolved, meta, node) = draft.resolve_existing(&join(&path), last)?;
    Ok(Source {
        path: join(&resolved),
        entry: Entry {
            name: path.last().cloned().unwrap_or_default(),
            meta,
            node,
        },
        written: path,
        matched,
    })
}

/// Collects the paths whose names match the globs one by one, below `path`. Links are names here, not entered.
fn match_names(draft: &Draft<'_>, globs: &[Glob], path: &mut Names, matches: &mut Vec<Names>) -> Result<(), EditError> {
    let Some((glob, rest)) = globs.split_first() else {
        return Ok(());
    };
    for (name, node) in draft.list(path)? {
        if !glob.matches(&name) {
            continue;
        }
        path.push(name);
        match node {
            _ if rest.is_empty() => matches.push(path.clone()),
            Node::Directory(_) => match_names(draft, rest, path, matches)?,
            _ => {}
        }
        path.pop();
    }
    Ok(())
}

/// The compiled patterns of a selection.
pub(super) struct Filter<'a> {
    trees: &'a dyn DirectoryStore,
    paths: PathFilter,
}

impl<'a> Filter<'a> {
    pub(super) fn new(trees: &'a dyn DirectoryStore, selection: &Selection<'_>) -> Result<Self, EditError> {
        Ok(Self {
            trees,
            paths: PathFilter::new(selection.include, selection.exclude)?,
        })
    }

    /// What is taken of a source; of a file always the whole.
    pub(super) fn take(&self, source: &Source) -> Result<Taken, EditError> {
        match &source.entry.node {
            Node::Directory(below) => self.below(below, b"", self.paths.top(), &FilterState::default()),
            _ => Ok(Taken::Whole),
        }
    }

    fn below(
        &self,
        directory: &DirectoryRef,
        path: &[u8],
        verdict: Below,
        state: &FilterState,
    ) -> Result<Taken, EditError> {
        match verdict {
            Below::Matched => return Ok(Taken::Whole),
            Below::Unmatched => return Ok(Taken::Part(Vec::new())),
            Below::Mixed => {}
        }
        let mut taken = Vec::new();
        for entry in &self.trees.need_directory(&directory.digest)?.entries {
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            let verdict = self.paths.judge(&path, state);
            let (below, holds) = match &entry.node {
                Node::Directory(directory) => {
                    let below = deep(|| self.below(directory, &path, verdict.below, &verdict.state))?;
                    let holds = match &below {
                        Taken::Whole => directory.totals.entries > 0,
                        Taken::Part(entries) => !entries.is_empty(),
                    };
                    (below, holds)
                }
                _ => (Taken::Whole, false),
            };
            if verdict.selected || holds {
                taken.push(TakenEntry {
                    entry: entry.clone(),
                    selected: verdict.selected,
                    below,
                });
            }
        }
        Ok(Taken::Part(taken))
    }

    /// The content digest of what is taken, the same as that of a directory that holds just that.
    fn content(&self, directory: &DirectoryRef, taken: &Taken) -> DirectoryRef {
        let Taken::Part(entries) = taken else {
            return *directory;
        };
        let entries = entries
            .iter()
            .map(|taken| Entry {
                node: match &taken.entry.node {
                    Node::Directory(below) => Node::Directory(deep(|| self.content(below, &taken.below))),
                    other => other.clone(),
                },
                ..taken.entry.clone()
            })
            .collect();
        let part = Directory {
            entries,
            ..Directory::default()
        };
        DirectoryRef {
            content: part.content_digest(),
            ..*directory
        }
    }
}

/// Checks that the required paths are among what was taken of the sources.
pub(super) fn check_required(
    trees: &dyn DirectoryStore,
    selection: &Selection<'_>,
    taken: &[(&Source, Taken)],
) -> Result<(), EditError> {
    for required in selection.required_paths {
        let cleaned = clean_path(&format!("/{required}"));
        let names: Names = cleaned
            .split('/')
            .filter(|name| !name.is_empty())
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let mut found = false;
        for (source, below) in taken {
            if let Some(rest) = names.strip_prefix(source.written.as_slice()) {
                found = found || holds(trees, &source.entry.node, below, rest)?;
            }
        }
        if !found {
            return Err(EditError::NotFound {
                path: cleaned.into_bytes(),
            });
        }
    }
    Ok(())
}

fn holds(trees: &dyn DirectoryStore, node: &Node, taken: &Taken, path: &[Vec<u8>]) -> Result<bool, EditError> {
    let Some((name, rest)) = path.split_first() else {
        return Ok(true);
    };
    let Node::Directory(directory) = node else {
        return Ok(false);
    };
    match taken {
        Taken::Whole => match trees.need_directory(&directory.digest)?.get(name) {
            Some(entry) => holds(trees, &entry.node, &Taken::Whole, rest),
            None => Ok(false),
        },
        Taken::Part(entries) => match entries.iter().find(|taken| taken.entry.name == *name) {
            Some(taken) => holds(trees, &taken.entry.node, &taken.below, rest),
            None => Ok(false),
        },
    }
}

/// The digest of all that a copy with this selection sees of its source: contents, kinds, modes, owners, attributes
/// and the names relative to the copied thing; no times, and not where the thing is. What a cache key is made of.
///
/// # Errors
/// As the copy itself: [`EditError::NotFound`], [`EditError::Pattern`] and failures to resolve the path.
pub fn select_digest(
    trees: &dyn DirectoryStore,
    root: &TreeDigest,
    selection: &Selection<'_>,
) -> Result<[u8; 32], EditError> {
    let sources = find_sources(trees, root, selection)?;
    let filter = Filter::new(trees, selection)?;
    let mut taken = Vec::new();
    for source in &sources {
        taken.push((source, filter.take(source)?));
    }
    check_required(trees, selection, &taken)?;
    let mut hasher = KeyHasher::new("cbs.select.v1");
    hasher.number(sources.len() as u64);
    for (source, below) in &taken {
        hasher.field(&source.matched);
        let mut entry = source.entry.clone();
        if let Node::Directory(directory) = &entry.node {
            entry.node = Node::Directory(filter.content(directory, below));
            if selection.dir_copy_contents {
                entry.meta = Metadata::new(0o755);
            }
        }
        hash_content(&mut hasher, &entry);
    }
    Ok(hasher.finish())
}

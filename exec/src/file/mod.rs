//! File ops: edits of trees, one layer for each output.
//!
//! ```text
//! inputs 0…n-1 ─┐
//!               ├─ action i (copy, mkdir, mkfile, rm, symlink) ─► value n+i ─ output k ─► Snapshot
//! values n…   ──┘                                                              layers = base's + diff(base, tree)
//! ```
//! Only metadata changes; the one exception is ADD, which reads an archive.

mod archive;
mod owner;

pub(crate) use owner::read_file;

use cbs_solver::{StepError, pb};
use cbs_store::diff::{diff, empty_tree};
use cbs_store::edit::{CopyOptions, Edit, Mkdir, Mkfile, ModeChange, Remove, Selection, Symlink, find_sources};
use cbs_store::{BlobStore, Layer, Node, Snapshot, Store, Timestamp, TreeDigest};
use pb::file_action::Action;

use crate::error::{edit_error, invalid};

/// A tree on its way, and the snapshot it grew from.
#[derive(Clone, Debug)]
struct Value {
    tree: TreeDigest,
    base: Option<Snapshot>,
}

/// Runs a file op. Blocking.
pub(crate) fn run(
    store: &Store,
    op: &pb::FileOp,
    inputs: &[Option<Snapshot>],
) -> Result<Vec<Option<Snapshot>>, StepError> {
    let scratch = empty_tree(store)?;
    let mut values: Vec<Value> = Vec::with_capacity(inputs.len() + op.actions.len());
    for input in inputs {
        let tree = input.as_ref().map_or(scratch, |snapshot| snapshot.tree);
        values.push(Value {
            tree,
            base: input.clone(),
        });
    }
    let mut outputs: Vec<(i64, usize)> = Vec::new();
    for action in &op.actions {
        let value = perform(store, action, &values, scratch)?;
        if action.output >= 0 {
            outputs.push((action.output, values.len()));
        }
        values.push(value);
    }
    outputs.sort_unstable();
    outputs
        .into_iter()
        .map(|(_, index)| Ok(Some(snapshot(store, &values[index])?)))
        .collect()
}

fn snapshot(store: &Store, value: &Value) -> Result<Snapshot, StepError> {
    let base = value.base.as_ref();
    let mut layers = base.map(|base| base.layers.clone()).unwrap_or_default();
    let layer = diff(store, base.map(|base| &base.tree), &value.tree)?;
    layers.push(Layer {
        diff: layer,
        diff_id: None,
    });
    Ok(Snapshot {
        tree: value.tree,
        layers,
    })
}

fn pick(values: &[Value], index: i64, scratch: TreeDigest) -> Result<Value, StepError> {
    if index == -1 {
        return Ok(Value {
            tree: scratch,
            base: None,
        });
    }
    let found = usize::try_from(index).ok().and_then(|index| values.get(index));
    found
        .cloned()
        .ok_or_else(|| invalid(format!("file op refers to input {index}, which is not there")))
}

fn perform(store: &Store, action: &pb::FileAction, values: &[Value], scratch: TreeDigest) -> Result<Value, StepError> {
    let input = pick(values, action.input, scratch)?;
    let trees: Vec<TreeDigest> = values.iter().map(|value| value.tree).collect();
    let owner = |owner: &Option<pb::ChownOpt>| owner::resolve(store, owner.as_ref(), &trees);
    let mut edit = Edit::new(store, &input.tree);
    edit.set_now(Timestamp::MADE);
    match action
        .action
        .as_ref()
        .ok_or_else(|| invalid("a file op has an empty action"))?
    {
        Action::Mkdir(mkdir) => edit
            .mkdir(&Mkdir {
                path: &mkdir.path,
                mode: mode_bits(mkdir.mode),
                make_parents: mkdir.make_parents,
                owner: owner(&mkdir.owner)?,
                mtime: time(mkdir.timestamp).unwrap_or(Timestamp::MADE),
            })
            .map_err(edit_error)?,
        Action::Mkfile(mkfile) => edit
            .mkfile(&Mkfile {
                path: &mkfile.path,
                mode: mode_bits(mkfile.mode),
                blob: store.put_bytes(&mkfile.data)?,
                size: mkfile.data.len() as u64,
                owner: owner(&mkfile.owner)?,
                mtime: time(mkfile.timestamp).unwrap_or(Timestamp::MADE),
            })
            .map_err(edit_error)?,
        Action::Symlink(symlink) => edit
            .symlink(&Symlink {
                target: &symlink.oldpath,
                path: &symlink.newpath,
                owner: owner(&symlink.owner)?,
                mtime: time(symlink.timestamp).unwrap_or(Timestamp::MADE),
            })
            .map_err(edit_error)?,
        Action::Rm(rm) => edit
            .remove(&Remove {
                path: &rm.path,
                allow_not_found: rm.allow_not_found,
                allow_wildcard: rm.allow_wildcard,
            })
            .map_err(edit_error)?,
        Action::Copy(copy) => {
            let source = pick(values, action.secondary_input, scratch)?;
            perform_copy(store, &mut edit, &source.tree, copy, owner(&copy.owner)?)?;
        }
    }
    Ok(Value {
        tree: edit.commit().map_err(edit_error)?,
        base: input.base,
    })
}

fn perform_copy(
    store: &Store,
    edit: &mut Edit<'_>,
    source_root: &TreeDigest,
    copy: &pb::FileActionCopy,
    owner: Option<cbs_store::edit::Owner>,
) -> Result<(), StepError> {
    let mode = match (copy.mode_str.as_str(), copy.mode) {
        ("", mode) if mode >= 0 => Some(ModeChange::Set(mode_bits(mode))),
        ("", _) => None,
        (text, _) => Some(ModeChange::parse(text).map_err(edit_error)?),
    };
    let options = CopyOptions {
        source: Selection {
            src: &copy.src,
            follow_symlink: copy.follow_symlink,
            dir_copy_contents: copy.dir_copy_contents,
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            include: &copy.include_patterns,
            exclude: &copy.exclude_patterns,
            required_paths: &copy.required_paths,
        },
        dest: &copy.dest,
        owner,
        mode,
        timestamp: time(copy.timestamp),
        made: Timestamp::MADE,
        create_dest_path: copy.create_dest_path,
        always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
    };
    if !copy.attempt_unpack_docker_compatibility {
        return edit.copy(source_root, &options).map_err(edit_error);
    }
    for source in find_sources(store, source_root, &options.source).map_err(edit_error)? {
        let unpacked = match &source.entry.node {
            Node::File { blob, .. } => archive::unpack(store, edit, blob, &options)?,
            _ => false,
        };
        if !unpacked {
            edit.copy_source(&source, &options).map_err(edit_error)?;
        }
    }
    Ok(())
}

/// Permission bits of a protobuf mode, which may carry file type bits.
fn mode_bits(mode: i32) -> u32 {
    u32::from_ne_bytes(mode.to_ne_bytes()) & 0o7777
}

/// Nanoseconds since 1970; -1 means that none was given.
fn time(nanos: i64) -> Option<Timestamp> {
    (nanos != -1).then(|| Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
    })
}

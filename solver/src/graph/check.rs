//! Checks every index inside an op, so that the rest of the crate and the executors can rely on them.

use pb::file_action::Action;

use crate::llb::pb;

/// What is wrong inside an op; [`super::load`] adds the names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// `what` number `index` is not below `limit`.
    Index {
        what: &'static str,
        index: i64,
        limit: usize,
    },
    /// The op lacks something.
    Missing(&'static str),
}

/// Checks an op with `inputs` inputs and counts its outputs.
pub(super) fn check(op: &pb::op::Op, inputs: usize) -> Result<usize, Flaw> {
    match op {
        pb::op::Op::Exec(exec) => check_exec(exec, inputs),
        pb::op::Op::File(file) => check_file(file, inputs),
        pb::op::Op::Source(_) => Ok(1),
        pb::op::Op::Build(build) => {
            for input in build.inputs.values() {
                optional("build input", input.input, inputs)?;
            }
            optional("builder", build.builder, inputs)?;
            Ok(1)
        }
        pb::op::Op::Merge(merge) => {
            for part in &merge.inputs {
                optional("merge input", part.input, inputs)?;
            }
            Ok(1)
        }
        pb::op::Op::Diff(diff) => {
            optional("lower input", diff.lower.map_or(-1, |lower| lower.input), inputs)?;
            optional("upper input", diff.upper.map_or(-1, |upper| upper.input), inputs)?;
            Ok(1)
        }
    }
}

/// -1 is BuildKit's "nothing"; any other number must exist.
fn optional(what: &'static str, index: i64, limit: usize) -> Result<(), Flaw> {
    if index == -1 || usize::try_from(index).is_ok_and(|index| index < limit) {
        Ok(())
    } else {
        Err(Flaw::Index { what, index, limit })
    }
}

/// Counts outputs that must be numbered 0, 1, 2 … without holes or doubles.
fn count_outputs(what: &'static str, outputs: impl Iterator<Item = i64>) -> Result<usize, Flaw> {
    let mut numbers: Vec<i64> = outputs.filter(|&output| output != -1).collect();
    numbers.sort_unstable();
    for (expected, &number) in numbers.iter().enumerate() {
        if usize::try_from(number) != Ok(expected) {
            return Err(Flaw::Index {
                what,
                index: number,
                limit: numbers.len(),
            });
        }
    }
    Ok(numbers.len())
}

fn check_exec(exec: &pb::ExecOp, inputs: usize) -> Result<usize, Flaw> {
    let meta = exec.meta.as_ref().ok_or(Flaw::Missing("process to run"))?;
    if meta.args.is_empty() {
        return Err(Flaw::Missing("arguments"));
    }
    for mount in &exec.mounts {
        optional("mount input", mount.input, inputs)?;
    }
    // Clients leave the output of secrets and sockets at 0; these mounts have none.
    let has_outputs = |mount: &&pb::Mount| !matches!(mount.mount_type(), pb::MountType::Secret | pb::MountType::Ssh);
    count_outputs(
        "mount output",
        exec.mounts.iter().filter(has_outputs).map(|mount| mount.output),
    )
}

fn check_file(file: &pb::FileOp, inputs: usize) -> Result<usize, Flaw> {
    if file.actions.is_empty() {
        return Err(Flaw::Missing("actions"));
    }
    for (position, action) in file.actions.iter().enumerate() {
        // Actions count the op's inputs first and then the results of the actions before them.
        let limit = inputs + position;
        optional("action input", action.input, limit)?;
        let owner = match action.action.as_ref().ok_or(Flaw::Missing("known file action"))? {
            Action::Copy(copy) => {
                // Copying out of the empty tree is legal: a stage may be empty.
                optional("copy source", action.secondary_input, limit)?;
                copy.owner.as_ref()
            }
            Action::Mkfile(file) => file.owner.as_ref(),
            Action::Mkdir(dir) => dir.owner.as_ref(),
            Action::Symlink(link) => link.owner.as_ref(),
            Action::Rm(_) => None,
        };
        for user in named_users(owner) {
            optional("owner input", user.input, limit)?;
        }
    }
    count_outputs("action output", file.actions.iter().map(|action| action.output))
}

/// The users and groups of an owner that must be looked up by name.
pub(crate) fn named_users(owner: Option<&pb::ChownOpt>) -> impl Iterator<Item = &pb::NamedUserOpt> {
    let both = owner.map(|owner| [owner.user.as_ref(), owner.group.as_ref()]);
    both.into_iter()
        .flatten()
        .flatten()
        .filter_map(|user| match &user.user {
            Some(pb::user_opt::User::ByName(name)) => Some(name),
            _ => None,
        })
}

//! Names for vertices that bring none, in BuildKit's wording.

use crate::llb::{CUSTOM_NAME, pb};
use pb::file_action::Action;

/// Longest text taken over from an op; a heredoc script should not fill the screen, nor a chain of merges grow without
/// end.
const LIMIT: usize = 200;

/// The name of a vertex: the custom one, else one made from the op. `input_name` gives the names of its inputs.
pub(super) fn vertex_name<'a>(
    op: &pb::op::Op,
    metadata: Option<&pb::OpMetadata>,
    input_name: impl Fn(i64) -> Option<&'a str>,
) -> String {
    let custom = metadata.and_then(|metadata| metadata.description.get(CUSTOM_NAME));
    if let Some(custom) = custom.filter(|name| !name.is_empty()) {
        return custom.clone();
    }
    let input = |index: i64| input_name(index).unwrap_or("scratch");
    let name = match op {
        pb::op::Op::Source(source) => source.identifier.clone(),
        pb::op::Op::Exec(exec) => exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default(),
        pb::op::Op::File(file) => {
            let names: Vec<_> = file.actions.iter().filter_map(action_name).collect();
            names.join(", ")
        }
        pb::op::Op::Build(_) => "build".to_owned(),
        pb::op::Op::Merge(merge) => {
            let names: Vec<_> = merge.inputs.iter().map(|part| shorten(input(part.input), 40)).collect();
            format!("merge ({})", names.join(", "))
        }
        pb::op::Op::Diff(diff) => {
            let lower = input(diff.lower.map_or(-1, |lower| lower.input));
            let upper = input(diff.upper.map_or(-1, |upper| upper.input));
            format!("diff {} -> {}", shorten(lower, 40), shorten(upper, 40))
        }
    };
    shorten(&name, LIMIT)
}

fn action_name(action: &pb::FileAction) -> Option<String> {
    Some(match action.action.as_ref()? {
        Action::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
        Action::Mkfile(file) => format!("mkfile {}", file.path),
        Action::Mkdir(dir) => format!("mkdir {}", dir.path),
        Action::Rm(rm) => format!("rm {}", rm.path),
        Action::Symlink(link) => format!("symlink {} -> {}", link.newpath, link.oldpath),
    })
}

fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

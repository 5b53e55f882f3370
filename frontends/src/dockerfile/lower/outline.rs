//! What `--call outline` collects: the arguments, secrets and agents that a target takes.

use std::collections::BTreeSet;

use super::super::source::LineRange;
use super::Convert;
use super::state::{NeedInfo, OutlineCapture, StageId};

/// The parameters of a target, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct OutlineData {
    pub(in super::super) name: String,
    pub(in super::super) description: String,
    pub(in super::super) args: Vec<OutlineArg>,
    pub(in super::super) secrets: Vec<OutlineNeed>,
    pub(in super::super) ssh: Vec<OutlineNeed>,
}

#[derive(Clone, Debug)]
pub(in super::super) struct OutlineArg {
    pub(in super::super) name: String,
    pub(in super::super) value: String,
    pub(in super::super) description: String,
    pub(in super::super) lines: LineRange,
}

#[derive(Clone, Debug)]
pub(in super::super) struct OutlineNeed {
    pub(in super::super) name: String,
    pub(in super::super) required: bool,
    pub(in super::super) lines: LineRange,
}

impl Convert<'_> {
    pub(super) fn outline(&self, target: StageId) -> OutlineData {
        let stage = &self.stages[target.0];
        let mut outline = OutlineData {
            name: stage.alias.clone(),
            description: stage.description.clone(),
            ..OutlineData::default()
        };
        // The first stage on the way that knows a name tells about it.
        let (mut args, mut secrets, mut ssh) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for id in self.outline_order(target) {
            let capture = &self.stages[id.0].outline;
            for name in used_with_defaults(capture) {
                let Some(info) = capture.args.get(&name) else { continue };
                if args.insert(name.clone()) {
                    outline.args.push(OutlineArg {
                        name,
                        value: info.value.clone(),
                        description: info.description.clone(),
                        lines: info.lines,
                    });
                }
            }
            let need = |(name, info): (&String, &NeedInfo)| OutlineNeed {
                name: name.clone(),
                required: info.required,
                lines: info.lines,
            };
            outline.secrets.extend(
                capture
                    .secrets
                    .iter()
                    .map(need)
                    .filter(|need| secrets.insert(need.name.clone())),
            );
            outline.ssh.extend(
                capture
                    .ssh
                    .iter()
                    .map(need)
                    .filter(|need| ssh.insert(need.name.clone())),
            );
        }
        outline.args.sort_by_key(|arg| arg.lines.first);
        outline.secrets.sort_by_key(|need| need.lines.first);
        outline.ssh.sort_by_key(|need| need.lines.first);
        outline
    }

    /// The target, then its base and what it needs, depth first, each once.
    fn outline_order(&self, target: StageId) -> Vec<StageId> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            order.push(id);
            let stage = &self.stages[id.0];
            open.extend(stage.needs.iter().rev().chain(&stage.base));
        }
        order
    }
}

/// The arguments a stage mentions, and those that their defaults mention.
fn used_with_defaults(capture: &OutlineCapture) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let mut open: Vec<&String> = capture.used.iter().collect();
    while let Some(name) = open.pop() {
        if used.insert(name.clone())
            && let Some(info) = capture.args.get(name)
        {
            open.extend(&info.uses);
        }
    }
    used
}

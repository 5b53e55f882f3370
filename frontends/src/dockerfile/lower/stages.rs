//! The stages as a whole: finding one, and lowering them in order.

use std::borrow::Cow;
use std::collections::BTreeSet;

use cbs_image::platform::Platform;
use cbs_image::reference::Reference;

use super::super::ast::Instruction;
use super::super::go::{Case, parse_bool, quote, suggest};
use super::super::options::NamedContext;
use super::super::shell::{ShellError, Variables};
use super::super::source::Complaint;
use super::Convert;
use super::state::{Command, Origin, StageId, StageState};

/// The base that is no image.
pub(super) const SCRATCH: &str = "scratch";

/// Arguments that steer scanning and never reach the environment.
pub(super) const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
pub(super) const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

pub(super) fn shell_complaint(error: &ShellError) -> Complaint {
    Complaint::new(error.to_string())
}

impl<'a> Convert<'a> {
    pub(super) fn add_stage(&mut self, mut stage: StageState<'a>) -> StageId {
        let id = StageId(self.stages.len());
        stage.id = id;
        if !stage.alias.is_empty() {
            self.by_name.insert(stage.alias.clone(), id);
        }
        self.stages.push(stage);
        id
    }

    fn stage_names(&self) -> impl Iterator<Item = &str> {
        self.stages
            .iter()
            .map(|stage| stage.label.as_str())
            .filter(|label| !label.is_empty())
    }

    /// Names that may have been meant by a name that is no image: stages, and images people use most.
    pub(super) fn base_suggestion(&self, name: &str) -> String {
        const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
        let hint = suggest(name, self.stage_names().chain(COMMON), Case::Sensitive);
        hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default()
    }

    pub(super) fn find_target(&self) -> Result<StageId, Complaint> {
        let Some(wanted) = &self.input.options.target else {
            return Ok(StageId(self.stages.len().saturating_sub(1)));
        };
        self.by_name.get(&wanted.to_lowercase()).copied().ok_or_else(|| {
            let hint = suggest(wanted, self.stage_names(), Case::Sensitive);
            let hint = hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default();
            Complaint::new(format!("target stage {} could not be found{hint}", quote(wanted)))
        })
    }

    /// Lowers the instructions of all reachable stages, in the order of the file.
    pub(super) fn dispatch_stages(&mut self, reachable: &BTreeSet<StageId>) {
        for index in 0..self.stages.len() {
            if !reachable.contains(&StageId(index)) || self.stages[index].dispatched {
                continue;
            }
            let mut stage = std::mem::take(&mut self.stages[index]);
            let began = self
                .begin_stage(&mut stage)
                .map_err(|complaint| complaint.at(stage.head.span).on(stage.head.lines));
            if self.note(began).is_some() {
                let commands = std::mem::take(&mut stage.commands);
                for command in &commands {
                    stage.in_trigger = command.origin == Origin::Trigger;
                    let head = &command.instruction.head;
                    let dispatched = self.dispatch(&mut stage, command);
                    self.note(dispatched.map_err(|complaint| complaint.at(head.span).on(head.lines)));
                }
                stage.commands = commands;
            }
            for (name, flag) in [
                (SCAN_CONTEXT, &mut stage.scan_context),
                (SCAN_STAGE, &mut stage.scan_stage),
            ] {
                let own = stage
                    .build_args
                    .iter()
                    .rev()
                    .find(|(arg, value)| arg == name && value.is_some());
                let value = own
                    .and_then(|(_, value)| value.as_deref())
                    .or_else(|| self.globals.get(name));
                *flag = value.is_some_and(|value| is_enabled(&stage.label, value));
            }
            stage.dispatched = true;
            self.stages[index] = stage;
        }
    }

    /// Takes over what the base left.
    fn begin_stage(&mut self, stage: &mut StageState<'a>) -> Result<(), Complaint> {
        if let Some(base) = stage.base {
            let base = &self.stages[base.0];
            stage.root = base.root;
            stage.platform.clone_from(&base.platform);
            stage.image = base.image.clone();
            stage.image.config.on_build.clear();
            stage.base_image.clone_from(&base.base_image);
            stage.workdir_set = base.workdir_set;
            stage.build_args.clone_from(&base.build_args);
            stage.env = base.env.clone();
            stage.dir.clone_from(&base.dir);
        }
        self.inherit_config(stage)
    }

    pub(super) fn find_context(&self, name: &str, platform: &Platform) -> Option<(String, &'a NamedContext)> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let contexts = &self.input.options.contexts;
        let familiar = name.parse::<Reference>().ok()?.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let keys = [format!("{name}::{}", platform.normalized()), name.to_owned()];
        keys.into_iter()
            .find_map(|key| contexts.get(&key).map(|context| (key, context)))
    }
}

impl<'a> Command<'a> {
    pub(super) fn of_file(instruction: &'a Instruction) -> Self {
        Self {
            instruction: Cow::Borrowed(instruction),
            sources: Vec::new(),
            origin: Origin::File,
        }
    }
}

/// A boolean, or a list of stages.
fn is_enabled(stage: &str, value: &str) -> bool {
    parse_bool(value).unwrap_or_else(|| value.split(',').any(|name| name == stage))
}

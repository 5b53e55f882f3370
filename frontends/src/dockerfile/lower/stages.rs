//! Stages: declared from the file, linked to what they need, and lowered in order.

use std::borrow::Cow;
use std::collections::BTreeSet;

use cbs_image::platform::Platform;

use super::super::ast::{Body, Head, Instruction, Stage};
use super::super::go::{Case, parse_bool, quote, suggest};
use super::super::lint::{check_default_bases, check_platform_flag, check_undefined_in_from};
use super::super::options::NamedContext;
use super::super::parse::parse_trigger;
use super::super::shell::{Expansion, NoVariables, ShellError, Variables};
use super::super::source::{Complaint, Spanned};
use super::env::Env;
use super::state::{ArgInfo, Command, Origin, StageId, StageKind, StageState};
use super::{Convert, Scope, Stopped};

/// The base that is no image.
pub(super) const SCRATCH: &str = "scratch";

/// Arguments that steer scanning and never reach the environment.
pub(super) const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
pub(super) const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

pub(super) fn shell_complaint(error: &ShellError) -> Complaint {
    Complaint::new(error.to_string())
}

impl<'a> Convert<'a> {
    /// Platform arguments and the ARGs in front of the first FROM.
    pub(super) fn read_globals(&mut self) -> Result<(), Complaint> {
        let stages = &self.input.dockerfile.stages;
        let last = stages
            .last()
            .and_then(|stage| stage.from.alias.as_ref())
            .map(|alias| alias.name.clone());
        let target = self
            .input
            .options
            .target
            .clone()
            .or(last)
            .filter(|name| !name.is_empty());
        let build = self.input.options.build_platform.normalized();
        let mut platform_args = Env::default();
        for (prefix, platform) in [("BUILD", &build), ("TARGET", &self.target)] {
            let parts = [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("OSVERSION", platform.os_version.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone()),
            ];
            for (part, value) in parts {
                let name = format!("{prefix}{part}");
                platform_args.set(&name, self.build_args.get(&name).unwrap_or(&value));
            }
        }
        let target = target.as_deref().unwrap_or("default");
        platform_args.set(
            "TARGETSTAGE",
            self.build_args.get("TARGETSTAGE").map_or(target, String::as_str),
        );

        // First as if there were no build arguments: defaults should name images too.
        self.globals = platform_args.clone();
        let build_args = std::mem::take(&mut self.build_args);
        if self.add_globals().is_ok() {
            check_default_bases(self.input.dockerfile, &self.shell, &self.globals, &mut self.linter);
        }
        self.build_args = build_args;
        self.globals = platform_args;
        self.global_info.clear();
        self.add_globals()
    }

    fn add_globals(&mut self) -> Result<(), Complaint> {
        for instruction in &self.input.dockerfile.global_args {
            let Body::Arg(items) = &instruction.body else { continue };
            for item in items {
                let mut info = ArgInfo {
                    description: item.description.clone(),
                    lines: instruction.head.lines,
                    ..ArgInfo::default()
                };
                let value = match (self.build_args.get(&item.name), &item.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        let expansion = self.shell.expand(default, &self.globals);
                        let expansion = expansion.map_err(|error| {
                            shell_complaint(&error)
                                .at(instruction.head.span)
                                .on(instruction.head.lines)
                        })?;
                        info.uses = expansion.matched;
                        // An ARG that extends itself needs what its earlier form needed.
                        if info.uses.remove(&item.name)
                            && let Some(earlier) = self.global_info.get(&item.name)
                        {
                            info.uses.extend(earlier.uses.iter().cloned());
                        }
                        Some(expansion.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    self.globals.set(&item.name, &value);
                    info.value = value;
                }
                self.global_info.insert(item.name.clone(), info);
            }
        }
        Ok(())
    }

    pub(super) fn declare_stages(&mut self) {
        let dockerfile = self.input.dockerfile;
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let declared = self.declare(index, stage);
            let located = declared.map_err(|complaint| complaint.at(stage.head.span).on(stage.head.lines));
            self.note(located);
        }
    }

    fn expand_in_from(&mut self, text: &str, head: &Head) -> Result<Expansion, Complaint> {
        let expansion = self
            .shell
            .expand(text, &self.globals)
            .map_err(|error| shell_complaint(&error))?;
        let known: Vec<&str> = self
            .global_info
            .keys()
            .map(String::as_str)
            .chain(self.globals.names())
            .collect();
        check_undefined_in_from(&expansion.unmatched, &known, head, &mut self.linter);
        Ok(expansion)
    }

    fn declare(&mut self, index: usize, stage: &'a Stage) -> Result<(), Complaint> {
        let base = self.expand_in_from(&stage.from.base.value, &stage.head)?;
        if base.text.is_empty() {
            let message = format!("base name ({}) should not be blank", stage.from.base.value);
            return Err(Complaint::new(message)
                .at(stage.from.base.span)
                .help("declare its ARG with a default before the first FROM, or give it with --build-arg"));
        }
        let mut used = base.matched;
        let mut platform = None;
        if let Some(flag) = &stage.from.platform {
            let expansion = self.expand_in_from(&flag.value, &stage.head)?;
            let target = self.globals.get("TARGETPLATFORM").unwrap_or_default().to_owned();
            check_platform_flag(&flag.value, &expansion, &target, stage, &mut self.linter);
            let hint = |expansion: &Expansion| {
                let known: Vec<&str> = self.globals.names().collect();
                let hint = expansion
                    .unmatched
                    .iter()
                    .find_map(|name| suggest(name, known.iter().copied(), Case::Sensitive));
                hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default()
            };
            if expansion.text.is_empty() {
                let hint = hint(&expansion);
                let message = format!("empty platform value from expression {}{hint}", flag.value);
                return Err(Complaint::new(message).at(flag.span));
            }
            platform = Some(expansion.text.parse::<Platform>().map_err(|error| {
                let hint = hint(&expansion);
                Complaint::new(format!("failed to parse platform {}: {error}{hint}", flag.value)).at(flag.span)
            })?);
            used.extend(expansion.matched);
        }
        let alias = stage
            .from
            .alias
            .as_ref()
            .map(|alias| alias.name.clone())
            .unwrap_or_default();
        let context_platform = platform.as_ref().unwrap_or(&self.target);
        let replaced_by = if alias.is_empty() {
            None
        } else {
            self.find_context(&alias, context_platform)
        };
        let base_id = match &replaced_by {
            Some(_) => None,
            // FROM, unlike --from, minds the case.
            None => self.by_name.get(&base.text).copied(),
        };
        let mut outline = match base_id {
            Some(base) => self.stages[base.0].outline.clone(),
            None => super::state::OutlineCapture {
                args: self.global_info.clone(),
                ..Default::default()
            },
        };
        outline.used.extend(used);
        let label = if alias.is_empty() {
            format!("stage-{index}")
        } else {
            alias.clone()
        };
        let steps = match &replaced_by {
            Some(_) => 0,
            None => usize::from(base.text != SCRATCH && base_id.is_none()) + count_steps(&stage.commands),
        };
        let state = StageState {
            head: stage.head.clone(),
            description: super::super::ast::description(&stage.head.comments, &alias),
            ignore_cache: self.input.options.ignores_cache(&alias),
            alias,
            label,
            base_name: base.text,
            base: base_id,
            replaced_by,
            platform,
            steps,
            outline,
            commands: stage.commands.iter().map(Command::of_file).collect(),
            dir: "/".to_owned(),
            ..StageState::default()
        };
        self.add_stage(state);
        Ok(())
    }

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

    /// Finds out which stages, contexts and images each instruction takes from.
    pub(super) fn link_stages(&mut self) {
        let declared = self.stages.len();
        for index in 0..declared {
            // The instructions of a stage that a context stands in for are never run.
            if self.stages[index].replaced_by.is_some() {
                continue;
            }
            let mut commands = std::mem::take(&mut self.stages[index].commands);
            for command in &mut commands {
                let linked = self.link(StageId(index), command, declared);
                self.note(linked.map_err(|complaint| {
                    complaint
                        .at(command.instruction.head.span)
                        .on(command.instruction.head.lines)
                }));
            }
            self.stages[index].commands = commands;
        }
        if self.complaints.is_empty() {
            let checked = self.check_cycles();
            self.note(checked);
        }
        if self.stages.len() == 1 {
            self.stages[0].label.clear();
        }
    }

    fn link(&mut self, stage: StageId, command: &mut Command<'a>, declared: usize) -> Result<(), Complaint> {
        let head = command.instruction.head.clone();
        command.sources = match &command.instruction.body {
            Body::Copy(copy) => match &copy.from {
                None => Vec::new(),
                Some(from) => vec![Some(self.copy_source(from, &head, declared)?)],
            },
            Body::Run(run) => {
                let names: Vec<_> = run
                    .mounts
                    .iter()
                    .map(|mount| (mount.from.clone(), mount.text.span))
                    .collect();
                let mut source = |(name, span): (Option<String>, _)| {
                    let name = name.filter(|name| name != SCRATCH)?;
                    Some(self.named_source(&Spanned::new(name, span), &head))
                };
                names.into_iter().map(&mut source).collect()
            }
            _ => Vec::new(),
        };
        self.stages[stage.0].needs.extend(command.sources.iter().flatten());
        Ok(())
    }

    fn copy_source(&mut self, from: &Spanned<String>, head: &Head, declared: usize) -> Result<StageId, Complaint> {
        let plain = self
            .shell
            .expand(&from.value, &NoVariables)
            .map_err(|error| shell_complaint(&error).at(from.span))?;
        if plain.text != from.value {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from \
                           global scope as a workaround";
            return Err(Complaint::new(message).at(from.span));
        }
        match from.value.parse::<i64>() {
            Err(_) => Ok(self.named_source(from, head)),
            Ok(number) => match usize::try_from(number) {
                Ok(index) if index < declared => Ok(StageId(index)),
                _ => Err(Complaint::new(format!("invalid stage index {number}")).at(from.span)),
            },
        }
    }

    /// A stage by name, or else a new external one.
    fn named_source(&mut self, name: &Spanned<String>, head: &Head) -> StageId {
        if let Some(&stage) = self.by_name.get(&name.value.to_lowercase()) {
            return stage;
        }
        // A name that several instructions take from is looked up once.
        let known = self
            .stages
            .iter()
            .find(|s| s.kind == StageKind::External && s.base_name == name.value);
        if let Some(known) = known {
            return known.id;
        }
        let head = Head {
            span: name.span,
            ..head.clone()
        };
        let external = StageState {
            head,
            base_name: name.value.clone(),
            kind: StageKind::External,
            dir: "/".to_owned(),
            ..StageState::default()
        };
        self.add_stage(external)
    }

    /// A stage must not need itself, even by detours.
    fn check_cycles(&self) -> Result<(), Complaint> {
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.stages.len()];
        for start in 0..self.stages.len() {
            if marks[start] != Mark::New {
                continue;
            }
            marks[start] = Mark::Open;
            let mut path = vec![(StageId(start), self.stages[start].needs.iter())];
            while let Some((stage, needs)) = path.last_mut() {
                let stage = *stage;
                match needs.next() {
                    Some(next) if marks[next.0] == Mark::Open => {
                        let state = &self.stages[stage.0];
                        let taker = state
                            .commands
                            .iter()
                            .find(|command| command.sources.contains(&Some(*next)));
                        let head = taker.map_or(&state.head, |command| &command.instruction.head);
                        let name = self.stages[next.0].display_name();
                        let message = format!("circular dependency detected on stage: {name}");
                        return Err(Complaint::new(message).at(head.span).on(head.lines));
                    }
                    Some(next) if marks[next.0] == Mark::New => {
                        marks[next.0] = Mark::Open;
                        path.push((*next, self.stages[next.0].needs.iter()));
                    }
                    Some(_) => {}
                    None => {
                        marks[stage.0] = Mark::Done;
                        path.pop();
                    }
                }
            }
        }
        Ok(())
    }

    /// The target and all it needs; when linting without a target, everything.
    fn reachable(&self, target: StageId) -> BTreeSet<StageId> {
        if self.input.scope == Scope::AllStages {
            return self.stages.iter().map(|stage| stage.id).collect();
        }
        let mut reachable = BTreeSet::from([target]);
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            let stage = &self.stages[id.0];
            for next in stage.base.iter().chain(&stage.needs).copied() {
                if reachable.insert(next) {
                    open.push(next);
                }
            }
        }
        reachable
    }

    /// Resolves the bases of all reachable stages. Triggers of bases may need further stages, and so on.
    pub(super) async fn resolve_stages(&mut self, target: StageId) -> Result<BTreeSet<StageId>, Stopped> {
        loop {
            let reachable = self.reachable(target);
            self.resolve_bases(&reachable).await;
            self.go_on()?;
            let mut found_more = false;
            for &id in &reachable {
                found_more |= self.add_triggers(id);
            }
            self.go_on()?;
            if !found_more {
                return Ok(reachable);
            }
        }
    }

    /// Puts the ONBUILD triggers of a stage's base in front of its instructions; says whether they need stages.
    fn add_triggers(&mut self, id: StageId) -> bool {
        let stage = &mut self.stages[id.0];
        if stage.triggers_added || stage.kind == StageKind::External || stage.replaced_by.is_some() {
            return false;
        }
        stage.triggers_added = true;
        let mut triggers = std::mem::take(&mut stage.image.config.on_build);
        let head = stage.head.clone();
        if let Some(base) = stage.base {
            let written = self.stages[base.0]
                .commands
                .iter()
                .filter_map(|command| match &command.instruction.body {
                    Body::Onbuild(trigger) => Some(trigger.clone()),
                    _ => None,
                });
            triggers.extend(written);
        }
        let declared = self.input.dockerfile.stages.len();
        let mut commands = Vec::new();
        for trigger in &triggers {
            let command = parse_trigger(trigger, &head).and_then(|instruction| {
                let mut command = Command {
                    instruction: Cow::Owned(instruction),
                    sources: Vec::new(),
                    origin: Origin::Trigger,
                };
                self.link(id, &mut command, declared)?;
                Ok(command)
            });
            commands.extend(self.note(command.map_err(|complaint| complaint.at(head.span).on(head.lines))));
        }
        let stage = &mut self.stages[id.0];
        stage.steps += commands.len();
        let needs_more = commands.iter().any(|command| !command.sources.is_empty());
        commands.append(&mut stage.commands);
        stage.commands = commands;
        needs_more
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
        let familiar = name.parse::<cbs_image::reference::Reference>().ok()?.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let keys = [format!("{name}::{}", platform.normalized()), name.to_owned()];
        keys.into_iter()
            .find_map(|key| contexts.get(&key).map(|context| (key, context)))
    }
}

impl<'a> Command<'a> {
    fn of_file(instruction: &'a Instruction) -> Self {
        Self {
            instruction: Cow::Borrowed(instruction),
            sources: Vec::new(),
            origin: Origin::File,
        }
    }
}

/// How many instructions make a step.
fn count_steps(commands: &[Instruction]) -> usize {
    let is_step = |command: &&Instruction| {
        matches!(
            command.body,
            Body::Add(_) | Body::Copy(_) | Body::Run(_) | Body::Workdir(_)
        )
    };
    commands.iter().filter(is_step).count()
}

/// A boolean, or a list of stages.
fn is_enabled(stage: &str, value: &str) -> bool {
    parse_bool(value).unwrap_or_else(|| value.split(',').any(|name| name == stage))
}

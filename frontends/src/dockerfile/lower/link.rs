//! Which stages take from which, the triggers of base images included.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::super::ast::{Body, Head};
use super::super::parse::parse_trigger;
use super::super::shell::NoVariables;
use super::super::source::{Complaint, Spanned};
use super::stages::{SCRATCH, shell_complaint};
use super::state::{Command, Origin, StageId, StageKind, StageState};
use super::{Convert, Scope, Stopped};

impl<'a> Convert<'a> {
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
        if self.stages.len() == 1 && !self.mounts_scratch {
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
                let mut source = |(name, span): (Option<String>, _)| match name {
                    Some(name) if name != SCRATCH => Some(self.named_source(&Spanned::new(name, span), &head)),
                    name => self.scratch_source(stage).filter(|_| name.is_some()),
                };
                names.into_iter().map(&mut source).collect()
            }
            _ => Vec::new(),
        };
        self.stages[stage.0].needs.extend(command.sources.iter().flatten());
        Ok(())
    }

    /// What a mount without `from`, or from scratch, depends on: nothing, unless a stage took that name.
    fn scratch_source(&mut self, stage: StageId) -> Option<StageId> {
        let named = self.by_name.get(SCRATCH).copied();
        match named {
            Some(named) => self.stages[stage.0].needs.extend([named]),
            // To BuildKit this is one more stage, and where there are several, steps show the stage they belong to.
            None => self.mounts_scratch = true,
        }
        named
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
}

//! The stages of the file, with their FROMs expanded.

use cbs_image::platform::Platform;

use super::super::ast::{Body, Head, Instruction, Stage, description};
use super::super::go::{Case, suggest};
use super::super::lint::{check_default_bases, check_platform_flag, check_undefined_in_from};
use super::super::shell::{Expansion, Variables};
use super::super::source::Complaint;
use super::Convert;
use super::env::Env;
use super::stages::{SCRATCH, shell_complaint};
use super::state::{ArgInfo, Command, OutlineCapture, StageState};

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
            None => OutlineCapture {
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
            description: description(&stage.head.comments, &alias),
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

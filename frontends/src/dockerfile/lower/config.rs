//! Instructions that only change the image's config, and WORKDIR.

use cbs_image::config::{Empty, Healthcheck};
use cbs_solver::pb;

use super::super::ast::{ArgItem, CommandForm, CommandLine, Head, Pair, PairForm, Word};
use super::super::go::{duration, list, quote, quote_list};
use super::super::lint::{LintRule, check_secret_name};
use super::super::shell::Variables;
use super::super::source::{Complaint, LineRange};
use super::Convert;
use super::env::split_pair;
use super::graph::{FileStep, NONE, NodeOp, named};
use super::mode::owner;
use super::paths;
use super::resolve::ensure_path;
use super::stages::{SCAN_CONTEXT, SCAN_STAGE};
use super::state::{ArgInfo, Layer, StageState};

impl<'a> Convert<'a> {
    /// Takes the environment and directory from the config a stage starts with.
    pub(super) fn inherit_config(&mut self, stage: &mut StageState<'a>) -> Result<(), Complaint> {
        let platform = stage.platform_or(&self.target).clone();
        ensure_path(stage, &platform);
        for pair in &stage.image.config.env {
            let (name, value) = split_pair(pair);
            stage.env.set(name, value);
        }
        let current = stage.image.config.working_dir.clone();
        if !current.is_empty() {
            let dir = paths::workdir(&current, &current, &platform.os)
                .map_err(|reason| Complaint::new(format!("normalizing workdir: {reason}")))?;
            stage.dir = paths::to_slash(&dir, &platform.os);
            stage.image.config.working_dir = dir;
        }
        stage.platform = Some(platform);
        Ok(())
    }

    fn commit(&self, stage: &mut StageState<'_>, text: String) -> Result<(), Complaint> {
        stage.commit(text, Layer::No, self.epoch);
        Ok(())
    }

    fn expand_pairs(
        &mut self,
        stage: &StageState<'_>,
        head: &Head,
        pairs: &[Pair],
    ) -> Result<Vec<(String, String)>, Complaint> {
        // Every value sees the environment before the instruction.
        pairs
            .iter()
            .map(|pair| {
                Ok((
                    self.expand(stage, head, &pair.key)?,
                    self.expand(stage, head, &pair.value)?,
                ))
            })
            .collect()
    }

    fn check_legacy(&mut self, head: &Head, form: PairForm) {
        if form == PairForm::Legacy {
            let keyword = &head.keyword.value;
            let detail =
                format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
            self.linter
                .warn(&head.comments, LintRule::LegacyKeyValueFormat, head.lines, detail);
        }
    }

    pub(super) fn env(&mut self, stage: &mut StageState<'_>, head: &Head, pairs: &[Pair]) -> Result<(), Complaint> {
        let expanded = self.expand_pairs(stage, head, pairs)?;
        let mut text = "ENV".to_owned();
        for (pair, (name, value)) in pairs.iter().zip(&expanded) {
            self.check_legacy(head, pair.form);
            check_secret_name("ENV", name, head, &mut self.linter);
            text.push_str(&format!(" {name}={value}"));
            stage.env.set(name, value);
            let env = &mut stage.image.config.env;
            match env.iter_mut().find(|pair| split_pair(pair).0 == name) {
                Some(known) => *known = format!("{name}={value}"),
                None => env.push(format!("{name}={value}")),
            }
        }
        self.commit(stage, text)
    }

    pub(super) fn label(&mut self, stage: &mut StageState<'_>, head: &Head, pairs: &[Pair]) -> Result<(), Complaint> {
        let expanded = self.expand_pairs(stage, head, pairs)?;
        let mut text = "LABEL".to_owned();
        for (pair, (name, value)) in pairs.iter().zip(expanded) {
            self.check_legacy(head, pair.form);
            text.push_str(&format!(" {name}={value}"));
            stage.image.config.labels.insert(name, value);
        }
        self.commit(stage, text)
    }

    pub(super) fn arg(&mut self, stage: &mut StageState<'_>, head: &Head, items: &[ArgItem]) -> Result<(), Complaint> {
        let mut texts = Vec::new();
        for item in items {
            check_secret_name("ARG", &item.name, head, &mut self.linter);
            let given = self.build_args.get(&item.name).cloned();
            let inherited = match (&given, &item.default) {
                (None, None) => self.globals.get(&item.name).map(str::to_owned),
                _ => None,
            };
            let is_inherited = inherited.is_some();
            let value = match (given, &item.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.expand(stage, head, default)?),
                (None, None) => inherited,
            };
            if let Some(value) = &value
                && item.name != SCAN_CONTEXT
                && item.name != SCAN_STAGE
            {
                stage.env.set(&item.name, value);
            }
            if !is_inherited {
                let info = ArgInfo {
                    value: value.clone().unwrap_or_default(),
                    description: item.description.clone(),
                    lines: head.lines,
                    ..ArgInfo::default()
                };
                stage.outline.args.insert(item.name.clone(), info);
            }
            stage.outline.used.insert(item.name.clone());
            texts.push(match &value {
                Some(value) => format!("{}={value}", item.name),
                None => item.name.clone(),
            });
            stage.build_args.push((item.name.clone(), value));
        }
        self.commit(stage, format!("ARG {}", texts.join(" ")))
    }

    fn check_used_once(&mut self, head: &Head, earlier: &mut Option<LineRange>) {
        // The earlier one is at fault: it does nothing.
        if let Some(lines) = earlier.replace(head.lines) {
            let keyword = &head.keyword.value;
            let detail = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            self.linter
                .warn(&head.comments, LintRule::MultipleInstructionsDisallowed, lines, detail);
        }
    }

    /// The words of a command, with the shell in front where the form asks for it.
    fn command_words(&mut self, stage: &StageState<'_>, head: &Head, line: &CommandLine) -> Vec<String> {
        if line.form == CommandForm::Exec {
            return line.args.clone();
        }
        if stage.image.config.shell.is_empty() {
            let keyword = &head.keyword.value;
            let detail = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            self.linter
                .warn(&head.comments, LintRule::JsonArgsRecommended, head.lines, detail);
        }
        with_shell(stage, &line.args.join(" "))
    }

    pub(super) fn cmd(&mut self, stage: &mut StageState<'_>, head: &Head, line: &CommandLine) -> Result<(), Complaint> {
        self.check_used_once(head, &mut stage.cmd);
        let words = self.command_words(stage, head, line);
        let text = format!("CMD {}", quote_list(&words));
        stage.image.config.cmd = words;
        stage.image.config.args_escaped = true;
        self.commit(stage, text)
    }

    pub(super) fn entrypoint(
        &mut self,
        stage: &mut StageState<'_>,
        head: &Head,
        line: &CommandLine,
    ) -> Result<(), Complaint> {
        self.check_used_once(head, &mut stage.entrypoint);
        let words = self.command_words(stage, head, line);
        let text = format!("ENTRYPOINT {}", quote_list(&words));
        stage.image.config.entrypoint = words;
        // The base's arguments were meant for the base's entrypoint.
        if stage.cmd.is_none() {
            stage.image.config.cmd.clear();
        }
        self.commit(stage, text)
    }

    pub(super) fn healthcheck(
        &mut self,
        stage: &mut StageState<'_>,
        head: &Head,
        check: &Healthcheck,
    ) -> Result<(), Complaint> {
        self.check_used_once(head, &mut stage.healthcheck);
        let text = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            list(&check.test),
            duration(check.interval),
            duration(check.timeout),
            duration(check.start_period),
            duration(check.start_interval),
            check.retries
        );
        stage.image.config.healthcheck = Some(check.clone());
        self.commit(stage, text)
    }

    pub(super) fn maintainer(&mut self, stage: &mut StageState<'_>, name: &str) -> Result<(), Complaint> {
        name.clone_into(&mut stage.image.author);
        self.commit(stage, format!("MAINTAINER {name}"))
    }

    pub(super) fn shell(&mut self, stage: &mut StageState<'_>, words: &[Word]) -> Result<(), Complaint> {
        stage.image.config.shell = words.iter().map(|word| word.value.clone()).collect();
        let text = format!("SHELL {}", list(&stage.image.config.shell));
        self.commit(stage, text)
    }

    pub(super) fn stopsignal(&mut self, stage: &mut StageState<'_>, head: &Head, word: &Word) -> Result<(), Complaint> {
        let signal = self.expand(stage, head, &word.value)?;
        if !is_signal(&signal) {
            return Err(Complaint::new(format!("invalid signal: {signal}")).at(word.span));
        }
        let text = format!("STOPSIGNAL {signal}");
        stage.image.config.stop_signal = signal;
        self.commit(stage, text)
    }

    pub(super) fn user(&mut self, stage: &mut StageState<'_>, head: &Head, word: &Word) -> Result<(), Complaint> {
        let user = self.expand(stage, head, &word.value)?;
        let text = format!("USER {user}");
        stage.image.config.user = user;
        self.commit(stage, text)
    }

    pub(super) fn volume(&mut self, stage: &mut StageState<'_>, head: &Head, words: &[Word]) -> Result<(), Complaint> {
        let mut volumes = Vec::new();
        for word in words {
            let volume = self.expand(stage, head, &word.value)?;
            if volume.is_empty() {
                return Err(Complaint::new("VOLUME specified can not be an empty string").at(word.span));
            }
            stage.image.config.volumes.insert(volume.clone(), Empty {});
            volumes.push(volume);
        }
        self.commit(stage, format!("VOLUME {}", list(&volumes)))
    }

    pub(super) fn workdir(&mut self, stage: &mut StageState<'_>, head: &Head, word: &Word) -> Result<(), Complaint> {
        let path = self.expand(stage, head, &word.value)?;
        let platform = stage.platform_or(&self.target).clone();
        // Only the first relative one is at fault: an absolute base mends all that follow.
        if !stage.workdir_set && !paths::is_absolute(&path, &platform.os) {
            let detail = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                quote(&path)
            );
            self.linter
                .warn(&head.comments, LintRule::WorkdirRelativePath, head.lines, detail);
        }
        stage.workdir_set = true;
        let dir = paths::workdir(&stage.image.config.working_dir, &path, &platform.os)
            .map_err(|reason| Complaint::new(format!("normalizing workdir: {reason}")).at(word.span))?;
        stage.dir = paths::to_slash(&dir, &platform.os);
        stage.image.config.working_dir = dir;
        let dir = stage.dir.clone();
        let mut layer = Layer::No;
        if dir != "/" {
            let user = &stage.image.config.user;
            let mkdir = pb::FileActionMkDir {
                path: cbs_solver::patterns::clean_path(&dir),
                mode: 0o755,
                make_parents: true,
                owner: (!user.is_empty()).then(|| owner(user)),
                timestamp: self.epoch.map_or(NONE, |seconds| seconds.saturating_mul(1_000_000_000)),
            };
            let shown = self.shown_code(head, &stage.env);
            let name = self.step_name(stage, &shown);
            let step = FileStep {
                source: None,
                action: pb::file_action::Action::Mkdir(mkdir),
            };
            let op = NodeOp::File {
                base: stage.root,
                actions: vec![step],
            };
            stage.root = Some(self.graph.add(op, named(name), Some(head.lines)));
            layer = Layer::Yes;
        }
        stage.commit(format!("WORKDIR {dir}"), layer, self.epoch);
        Ok(())
    }
}

/// A shell-form command as words.
pub(super) fn with_shell(stage: &StageState<'_>, command: &str) -> Vec<String> {
    let config = &stage.image.config;
    let mut words = match (config.shell.is_empty(), stage.image.os.as_str()) {
        (false, _) => config.shell.clone(),
        (true, "windows") => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
        (true, _) => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
    };
    words.push(command.to_owned());
    words
}

/// A number other than zero, or the name of a signal with or without `SIG`, in any case.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
        "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
        "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, highest: u32| {
        let digits = name
            .strip_prefix(prefix)
            .filter(|digits| !digits.starts_with(['0', '+']));
        digits
            .and_then(|digits| digits.parse::<u32>().ok())
            .is_some_and(|offset| offset <= highest)
    };
    NAMES.contains(&name) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for good in ["9", "SIGTERM", "term", "sigrtmin+15", "RTMAX-14", "RTMIN", "-3"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in [
            "0",
            "",
            "SIGNOPE",
            "SIG",
            "RTMIN+16",
            "RTMAX-15",
            "RTMIN+0",
            "SIGSIGTERM",
        ] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}

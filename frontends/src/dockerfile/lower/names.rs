//! The names of steps: `[linux/arm64 stage-1 2/5] RUN …`.

use cbs_image::platform::Platform;

use super::super::ast::{Head, Run};
use super::super::parse::mount::{Mount, MountKind};
use super::super::shell::{Escapes, Quotes, Shell, Unset, Variables};
use super::Convert;
use super::env::Env;
use super::state::StageState;

impl Convert<'_> {
    /// Counts a step of a stage and gives its name. Stages without steps of their own have plain names.
    pub(super) fn step_name(&self, stage: &mut StageState<'_>, text: &str) -> String {
        if stage.steps > 0 {
            stage.step += 1;
        }
        self.current_step_name(stage, text, &stage.env)
    }

    /// The name of the step counted last.
    pub(super) fn current_step_name(&self, stage: &StageState<'_>, text: &str, env: &Env) -> String {
        if stage.steps == 0 {
            return text.to_owned();
        }
        let platform = match self.prefixes_platform() {
            true => {
                let platform = stage.platform_or(&self.target);
                format!("{platform}{} ", cross_target(platform, env))
            }
            false => String::new(),
        };
        let label = if stage.label.is_empty() {
            String::new()
        } else {
            format!("{} ", stage.label)
        };
        let trigger = if stage.in_trigger { "ONBUILD " } else { "" };
        let width = stage.steps.to_string().len();
        format!(
            "[{platform}{label}{:>width$}/{}] {trigger}{text}",
            stage.step, stage.steps
        )
    }

    /// The text of an instruction as steps show it: expanded, the keyword in capitals.
    pub(super) fn shown_code(&self, head: &Head, env: &Env) -> String {
        let text = self
            .shell
            .expand(&head.code, env)
            .map_or_else(|_| head.code.clone(), |expansion| expansion.text);
        capitalize_keyword(&text)
    }

    /// The text of a RUN as steps show it: quotes and unset variables stay, secrets are masked.
    pub(super) fn shown_run(&self, text: &str, mounts: &[Mount], env: &Env) -> String {
        let shell = Shell {
            quotes: Quotes::Keep,
            escapes: Escapes::Remove,
            unset: Unset::Keep,
            ..self.shell
        };
        let secrets = mounts.iter().filter(|mount| mount.kind == MountKind::Secret);
        let masked = Masked {
            names: secrets.filter_map(|mount| mount.env.as_deref()).collect(),
            env,
        };
        let text = shell
            .expand(text, &masked)
            .map_or_else(|_| text.to_owned(), |expansion| expansion.text);
        capitalize_keyword(&text)
    }
}

/// The text that names a RUN with a heredoc: the instruction and the first line of the document.
pub(super) fn run_text(head: &Head, run: &Run, is_document: bool) -> String {
    let Some(document) = run.command.heredocs.first().filter(|_| is_document) else {
        return head.code.clone();
    };
    let content = String::from_utf8_lossy(&document.content);
    let mut lines = content.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{} ({first}{more})", head.code)
}

/// Variables of which some hold secrets.
struct Masked<'a> {
    names: Vec<&'a str>,
    env: &'a Env,
}

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.names.contains(&name) {
            Some("****")
        } else {
            self.env.get(name)
        }
    }
}

fn capitalize_keyword(text: &str) -> String {
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// `->arm64` where a stage runs on one platform and the TARGET arguments it declared say another.
fn cross_target(own: &Platform, env: &Env) -> String {
    let mut target = Platform {
        os: String::new(),
        ..Platform::default()
    };
    let mut any = false;
    for name in env.names() {
        let value = env.get(name).unwrap_or_default();
        match name {
            "TARGETPLATFORM" => match value.parse() {
                Ok(parsed) => {
                    target = parsed;
                    any = true;
                    break;
                }
                Err(_) => continue,
            },
            "TARGETOS" => target.os = value.to_owned(),
            "TARGETARCH" => target.architecture = value.to_owned(),
            "TARGETVARIANT" => target.variant = value.to_owned(),
            _ => continue,
        }
        any = true;
    }
    if !any {
        return String::new();
    }
    if target.os.is_empty() {
        target.os.clone_from(&own.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&own.architecture);
    }
    let target = target.normalized();
    if target.os != own.os {
        return format!("->{target}");
    }
    match (target.architecture == own.architecture, target.variant.as_str()) {
        (true, _) => String::new(),
        (false, "") => format!("->{}", target.architecture),
        (false, variant) => format!("->{}/{variant}", target.architecture),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_targets() {
        let own = Platform::new("linux", "amd64", "");
        let shown = |pairs: &[(&str, &str)]| {
            let mut env = Env::default();
            pairs.iter().for_each(|(name, value)| env.set(name, value));
            cross_target(&own, &env)
        };
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&[("TARGETPLATFORM", "linux/amd64")]), "");
        assert_eq!(shown(&[("TARGETARCH", "arm"), ("TARGETVARIANT", "v6")]), "->arm/v6");
        assert_eq!(shown(&[("TARGETPLATFORM", "linux/arm64")]), "->arm64");
        assert_eq!(shown(&[("TARGETOS", "windows")]), "->windows/amd64");
    }
}

//! The rules themselves, as far as they are not checked where the instruction is lowered.

use std::collections::BTreeSet;

use cbs_solver::patterns::PatternList;

use super::super::ast::{Body, Dockerfile, Head, Instruction, Stage};
use super::super::go::{Case, quote, suggest};
use super::super::shell::{Expansion, Shell, Variables};
use super::super::source::LineRange;
use super::{LintRule, Linter};
use cbs_image::platform::Platform;
use cbs_image::reference::Reference;

/// The rules that need the text only, in the order BuildKit finds them.
pub(crate) fn check_syntax(dockerfile: &Dockerfile, linter: &mut Linter) {
    for &line in &dockerfile.empty_continuations {
        let lines = LineRange {
            first: line,
            last: line,
        };
        linter.warn(
            &[],
            LintRule::NoEmptyContinuation,
            lines,
            "Empty continuation line".to_owned(),
        );
    }
    for arg in &dockerfile.global_args {
        check_instruction(arg, linter);
    }
    for stage in &dockerfile.stages {
        check_from(stage, linter);
        for command in &stage.commands {
            check_instruction(command, linter);
        }
    }
    check_stage_names(&dockerfile.stages, linter);
    check_casing(&dockerfile.stages, linter);
}

fn check_instruction(instruction: &Instruction, linter: &mut Linter) {
    let head = &instruction.head;
    match &instruction.body {
        Body::Maintainer(_) => {
            let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
            linter.warn(&head.comments, LintRule::MaintainerDeprecated, head.lines, detail);
        }
        Body::Arg(items) => {
            let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
            check_description("ARG", &names, head, linter);
        }
        _ => {}
    }
}

fn check_from(stage: &Stage, linter: &mut Linter) {
    let head = &stage.head;
    let Some(alias) = &stage.from.alias else { return };
    let written = alias.written.value.as_str();
    if written != written.to_lowercase() {
        let detail = format!("Stage name '{written}' should be lowercase");
        linter.warn(&head.comments, LintRule::StageNameCasing, head.lines, detail);
    }
    let (from, keyword) = (head.keyword.value.as_str(), alias.keyword.value.as_str());
    // Where FROM itself mixes case, another rule speaks up.
    let matches = match casing(from) {
        Some(Casing::Lower) => keyword == keyword.to_lowercase(),
        Some(Casing::Upper) => keyword == keyword.to_uppercase(),
        None => true,
    };
    if !matches {
        let detail = format!("'{keyword}' and '{from}' keywords' casing do not match");
        linter.warn(&head.comments, LintRule::FromAsCasing, head.lines, detail);
    }
    check_description("FROM", &[alias.name.as_str()], head, linter);
}

fn check_description(instruction: &str, names: &[&str], head: &Head, linter: &mut Linter) {
    let Some(comment) = head.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { names[0] };
    let detail = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    linter.warn(
        &head.comments,
        LintRule::InvalidDefinitionDescription,
        head.lines,
        detail,
    );
}

fn check_stage_names(stages: &[Stage], linter: &mut Linter) {
    let mut seen = BTreeSet::new();
    for stage in stages {
        let Some(alias) = &stage.from.alias else { continue };
        let name = alias.name.as_str();
        if matches!(name, "context" | "scratch") {
            let detail = format!(
                "Stage name should not use the same name as reserved stage {}",
                quote(name)
            );
            linter.warn(&[], LintRule::ReservedStageName, stage.head.lines, detail);
        }
        if !seen.insert(name) {
            let detail = format!("Duplicate stage name {}, stage names should be unique", quote(name));
            linter.warn(&[], LintRule::DuplicateStageName, stage.head.lines, detail);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

fn casing(word: &str) -> Option<Casing> {
    if word == word.to_lowercase() {
        Some(Casing::Lower)
    } else if word == word.to_uppercase() {
        Some(Casing::Upper)
    } else {
        None
    }
}

/// Instructions should all be in the case of most of them; capitals win a draw.
fn check_casing(stages: &[Stage], linter: &mut Linter) {
    let heads = || {
        stages
            .iter()
            .flat_map(|stage| [&stage.head].into_iter().chain(stage.commands.iter().map(|c| &c.head)))
    };
    let count = |wanted| {
        heads()
            .filter(|head| casing(&head.keyword.value) == Some(wanted))
            .count()
    };
    let majority = if count(Casing::Lower) > count(Casing::Upper) {
        Casing::Lower
    } else {
        Casing::Upper
    };
    let (correct, words) = match majority {
        Casing::Lower => (Casing::Lower, "lowercase"),
        Casing::Upper => (Casing::Upper, "uppercase"),
    };
    for head in heads() {
        let keyword = &head.keyword.value;
        if casing(keyword) != Some(correct) {
            let detail = format!("Command '{keyword}' should match the case of the command majority ({words})");
            linter.warn(&[], LintRule::ConsistentInstructionCasing, head.lines, detail);
        }
    }
}

/// Without build arguments every FROM should still name an image.
pub(crate) fn check_default_bases(
    dockerfile: &Dockerfile,
    shell: &Shell,
    variables: &dyn Variables,
    linter: &mut Linter,
) {
    for stage in &dockerfile.stages {
        let base = &stage.from.base.value;
        let Ok(expansion) = shell.expand(base, variables) else {
            return;
        };
        if expansion.text.parse::<Reference>().is_err() {
            let detail = format!("Default value for ARG {base} results in empty or invalid base image name");
            linter.warn(&[], LintRule::InvalidDefaultArgInFrom, stage.head.lines, detail);
        }
    }
}

/// Variables in a FROM that no global ARG declares.
pub(crate) fn check_undefined_in_from(unmatched: &BTreeSet<String>, known: &[&str], head: &Head, linter: &mut Linter) {
    for name in unmatched.iter().filter(|name| !known.contains(&name.as_str())) {
        let hint = suggest(name, known.iter().copied(), Case::Sensitive);
        let hint = hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default();
        let detail = format!("FROM argument '{name}' is not declared{hint}");
        linter.warn(&head.comments, LintRule::UndefinedArgInFrom, head.lines, detail);
    }
}

/// `FROM --platform` that is fixed, or says what is so anyway.
pub(crate) fn check_platform_flag(
    written: &str,
    expansion: &Expansion,
    target: &str,
    stage: &Stage,
    linter: &mut Linter,
) {
    let head = &stage.head;
    let only_target = expansion.matched.iter().eq(["TARGETPLATFORM"]) && expansion.unmatched.is_empty();
    if only_target && expansion.text == target {
        let detail =
            format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior");
        linter.warn(&head.comments, LintRule::RedundantTargetPlatform, head.lines, detail);
    }
    if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
        return;
    }
    let Ok(platform) = expansion.text.parse::<Platform>() else {
        return;
    };
    // A stage that is named after its platform is meant to be fixed.
    let name = stage.from.alias.as_ref().map_or("", |alias| alias.name.as_str());
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return;
    }
    let detail = format!(
        "FROM --platform flag should not use constant value {}",
        quote(&expansion.text)
    );
    linter.warn(
        &head.comments,
        LintRule::FromPlatformFlagConstDisallowed,
        head.lines,
        detail,
    );
}

/// A base image of another operating system or architecture than wanted.
pub(crate) fn check_base_platform(
    image: &str,
    wanted: &Platform,
    found: &Platform,
    lines: LineRange,
    linter: &mut Linter,
) {
    if wanted.os != found.os || wanted.architecture != found.architecture {
        let (found, wanted) = (
            quote(&found.normalized().to_string()),
            quote(&wanted.normalized().to_string()),
        );
        let detail =
            format!("Base image {image} was pulled with platform {found}, expected {wanted} for current build");
        linter.warn(&[], LintRule::InvalidBaseImagePlatform, lines, detail);
    }
}

/// Variables that are used and that nothing defines.
pub(crate) fn check_undefined_variables<'a>(
    unmatched: &BTreeSet<String>,
    declared: &dyn Fn(&str) -> bool,
    set: impl Iterator<Item = &'a str> + Clone,
    head: &Head,
    linter: &mut Linter,
) {
    for name in unmatched.iter().filter(|name| !declared(name)) {
        if matches!(name.as_str(), "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE") {
            continue;
        }
        let hint = suggest(name, set.clone(), Case::Sensitive);
        let hint = hint.map(|hint| format!(" (did you mean ${hint}?)")).unwrap_or_default();
        let detail = format!("Usage of undefined variable '${name}'{hint}");
        linter.warn(&head.comments, LintRule::UndefinedVar, head.lines, detail);
    }
}

/// An ARG or ENV whose name says that its value is secret.
pub(crate) fn check_secret_name(instruction: &str, name: &str, head: &Head, linter: &mut Linter) {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let lower = name.to_lowercase();
    let mut words = lower.split('_');
    let is_secret = words.clone().any(|word| SECRET.contains(&word));
    if is_secret && !words.any(|word| HARMLESS.contains(&word)) {
        let detail = format!(
            "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
            quote(name)
        );
        linter.warn(&head.comments, LintRule::SecretsUsedInArgOrEnv, head.lines, detail);
    }
}

/// Whether a list ignores everything at the root, so that copying `.` copies nothing.
pub(crate) fn is_root_ignored(ignored: &PatternList) -> bool {
    ignored
        .patterns()
        .any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*"))
}

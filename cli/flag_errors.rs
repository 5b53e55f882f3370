//! `cbs build` is a target that nobody wrote: a complaint about an attribute of it is one about a flag.

use std::fmt::Write as _;

use cbs_frontends::bake::BakeError;

use crate::build_args::BuildArgs;
use crate::failure::Usage;
use crate::target::WrongAttribute;

/// The complaint in words of the command line.
pub(crate) fn as_flag(error: BakeError, args: &BuildArgs) -> anyhow::Error {
    match error {
        BakeError::Placed { error, .. } => as_flag(*error, args),
        BakeError::Target { attribute, reason, .. } => Usage(told(attribute, &reason, args)).into(),
        BakeError::Override { setting, reason } => Usage(format!("{setting}: {reason}")).into(),
        BakeError::Flag { .. } => Usage(error.to_string()).into(),
        BakeError::Source(errors) => {
            let said = errors.iter().map(|error| of_definition(&error.message, args));
            Usage(said.collect::<Vec<_>>().join("\n")).into()
        }
        error => error.into(),
    }
}

/// A complaint about what an attribute was read as. The main context is no flag, and stays what it is.
pub(crate) fn of_target(error: anyhow::Error, args: &BuildArgs) -> anyhow::Error {
    match error.downcast::<WrongAttribute>() {
        Ok(wrong) if wrong.attribute == "context" => anyhow::anyhow!("context: {}", wrong.reason),
        Ok(wrong) => Usage(told(wrong.attribute, &wrong.reason, args)).into(),
        Err(other) => other,
    }
}

/// `target "build", attribute secret: entry 0: …` is about the first `--secret`.
fn of_definition(message: &str, args: &BuildArgs) -> String {
    let split = message
        .split_once(", attribute ")
        .and_then(|(_, rest)| rest.split_once(": "));
    match split {
        Some((attribute, reason)) => told(attribute, reason, args),
        None => message.to_owned(),
    }
}

fn told(attribute: &str, reason: &str, args: &BuildArgs) -> String {
    let (flag, values) = flag(attribute, reason, args);
    let entry = reason.strip_prefix("entry ").and_then(|rest| rest.split_once(": "));
    let (number, reason) = match entry {
        Some((number, rest)) => (number.parse().unwrap_or(0), rest),
        None => (0, reason),
    };
    let value = match (values, entry) {
        ([only], _) => Some(only),
        (all, Some(_)) => all.get(number),
        (_, None) => None,
    };
    let mut text = flag.to_owned();
    // A reason that shows the value need not be told it twice.
    if let Some(value) = value.filter(|value| !value.is_empty() && !reason.contains(value.as_str())) {
        // Writing to a string cannot fail.
        let _ = write!(text, " `{value}`");
    }
    format!("{text}: {reason}")
}

/// The flag that gives an attribute, and its values.
fn flag<'a>(attribute: &'a str, reason: &str, args: &'a BuildArgs) -> (&'a str, &'a [String]) {
    let one = |value: &'a Option<String>| value.as_slice();
    match attribute {
        "secret" => ("--secret", &args.secret),
        "ssh" => ("--ssh", &args.ssh),
        "output" => ("--output", &args.output),
        "platforms" => ("--platform", &args.platform),
        "annotations" => ("--annotation", &args.annotation),
        "ulimits" => ("--ulimit", &args.ulimit),
        "cache-from" => ("--cache-from", &args.cache_from),
        "cache-to" => ("--cache-to", &args.cache_to),
        "attest" => ("--attest", &args.attest),
        "policy" => ("--policy", &args.policy),
        "contexts" => ("--build-context", &args.build_context),
        "tags" => ("--tag", &args.tag),
        "labels" => ("--label", &args.label),
        "args" => ("--build-arg", &args.build_arg),
        "resources" => (args.legacy.flag_of(reason).unwrap_or("--resource"), &args.resource),
        "extra-hosts" => ("--add-host", &args.add_host),
        "no-cache-filter" => ("--no-cache-filter", &args.no_cache_filter),
        "shm-size" => ("--shm-size", one(&args.shm_size)),
        "network" => ("--network", one(&args.network)),
        "target" => ("--target", one(&args.target)),
        "dockerfile" => ("--file", one(&args.file)),
        "call" => ("--call", one(&args.call)),
        other => (other, &[]),
    }
}

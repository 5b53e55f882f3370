//! Another parser knows a subset of the language; within it, both see the same instructions.

use dockerfile_parser::{Dockerfile as Other, Instruction, ShellOrExecExpr};
use proptest::prelude::*;

use super::super::ast::Body;
use super::*;

/// Each stage's instructions in one form, as the other parser sees them.
fn theirs(text: &str) -> Vec<Vec<String>> {
    let line = |name: &str, expression: &ShellOrExecExpr| match expression {
        ShellOrExecExpr::Shell(shell) => format!("{name} {shell}"),
        ShellOrExecExpr::Exec(exec) => format!("{name} {}", exec.as_str_vec().join(" ")),
    };
    let mut stages: Vec<Vec<String>> = Vec::new();
    for instruction in &Other::parse(text).expect("within the subset").instructions {
        let entry = match instruction {
            Instruction::From(from) => {
                stages.push(Vec::new());
                let alias = from.alias.as_ref().map_or("", |alias| &alias.content);
                format!("FROM {} {alias}", from.image.content)
            }
            Instruction::Env(env) => pairs(
                "ENV",
                env.vars.iter().map(|var| (&var.key.content, var.value.to_string())),
            ),
            Instruction::Label(label) => {
                let labels = label.labels.iter();
                pairs(
                    "LABEL",
                    labels.map(|label| (&label.name.content, label.value.content.clone())),
                )
            }
            Instruction::Run(run) => line("RUN", &run.expr),
            Instruction::Cmd(cmd) => line("CMD", &cmd.expr),
            Instruction::Entrypoint(entrypoint) => line("ENTRYPOINT", &entrypoint.expr),
            Instruction::Copy(copy) => {
                let sources: Vec<_> = copy.sources.iter().map(|source| source.content.as_str()).collect();
                format!("COPY {} {}", sources.join(" "), copy.destination.content)
            }
            Instruction::Arg(_) | Instruction::Misc(_) => continue,
        };
        stages.last_mut().expect("FROM comes first").push(entry);
    }
    stages
}

/// The same in our eyes.
fn ours(text: &str) -> Vec<Vec<String>> {
    let (dockerfile, complaints) = parse(&SourceFile::new("Dockerfile", text.as_bytes()));
    assert_eq!(complaints, [], "parsing {text:?}");
    let stage = |stage: &Stage| {
        let alias = stage.from.alias.as_ref().map_or("", |alias| &alias.name);
        let commands = stage.commands.iter().filter_map(|command| match &command.body {
            Body::Env(env) => Some(pairs("ENV", env.iter().map(|pair| (&pair.key, pair.value.clone())))),
            Body::Label(label) => Some(pairs("LABEL", label.iter().map(|pair| (&pair.key, pair.value.clone())))),
            Body::Run(run) => Some(format!("RUN {}", run.command.args.join(" "))),
            Body::Cmd(line) => Some(format!("CMD {}", line.args.join(" "))),
            Body::Entrypoint(line) => Some(format!("ENTRYPOINT {}", line.args.join(" "))),
            Body::Copy(copy) => {
                let sources: Vec<_> = copy.transfer.sources.iter().map(|word| word.value.as_str()).collect();
                Some(format!(
                    "COPY {} {}",
                    sources.join(" "),
                    copy.transfer.destination.value
                ))
            }
            _ => None,
        });
        let from = format!("FROM {} {alias}", stage.from.base.value);
        std::iter::once(from).chain(commands).collect()
    };
    dockerfile.stages.iter().map(stage).collect()
}

fn pairs<'a>(name: &str, pairs: impl Iterator<Item = (&'a String, String)>) -> String {
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    format!("{name} {}", pairs.join(" "))
}

/// A line both parsers know.
fn line() -> impl Strategy<Value = String> {
    let word = || "[a-z][a-z0-9._/-]{0,8}";
    let words = move |count| proptest::collection::vec(word(), count).prop_map(|words| words.join(" "));
    let name = "RUN|CMD|ENTRYPOINT|run|Cmd";
    let pair = || ("[A-Z][A-Z0-9_]{0,5}", word()).prop_map(|(key, value)| format!("{key}={value}"));
    let pair_list = move || proptest::collection::vec(pair(), 1..4).prop_map(|pairs| pairs.join(" "));
    prop_oneof![
        (word(), "[a-z0-9]{1,4}").prop_map(|(image, tag)| format!("FROM {image}:{tag}")),
        ("[a-z]{1,6}", "AS|as", "[a-z][a-z0-9-]{0,6}")
            .prop_map(|(image, word, alias)| { format!("FROM {image} {word} s{alias}") }),
        (name, words(1..5)).prop_map(|(name, words)| format!("{name} {words}")),
        (name, words(1..3), words(1..3)).prop_map(|(name, one, two)| format!("{name} {one} \\\n  && {two}")),
        (name, proptest::collection::vec("[a-z /$-]{0,6}", 1..4))
            .prop_map(|(name, words)| { format!("{name} {}", serde_json::Value::from(words)) }),
        words(2..5).prop_map(|words| format!("COPY {words}")),
        words(2..4).prop_map(|words| format!("COPY --from=other --chown=1:2 {words}")),
        pair_list().prop_map(|pairs| format!("ENV {pairs}")),
        pair_list().prop_map(|pairs| format!("LABEL {pairs}")),
        ("[A-Z]{1,5}", words(1..3)).prop_map(|(key, words)| format!("ENV {key} {words}")),
        pair().prop_map(|pair| format!("ARG {pair}")),
        word().prop_map(|word| format!("# {word}\n\nWORKDIR /{word}")),
        word().prop_map(|word| format!("USER {word}")),
    ]
}

#[test]
fn on_a_file_of_everything() {
    let text = "ARG V=3\nFROM alpine:$V AS base\nENV A=1 B=two\nLABEL x=y\nRUN echo hi \\\n  && ls\nRUN [\"a\", \"b\"]\n\
                COPY --from=x a b /c/\nENTRYPOINT [\"/e\"]\nFROM base\nCMD run it\n";
    assert_eq!(ours(text), theirs(text));
}

proptest! {
    #[test]
    fn on_any_file_of_the_subset(lines in proptest::collection::vec(line(), 0..16)) {
        let text = format!("FROM scratch\n{}\n", lines.join("\n"));
        prop_assert_eq!(ours(&text), theirs(&text), "of {:?}", text);
    }
}

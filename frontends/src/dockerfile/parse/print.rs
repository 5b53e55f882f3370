//! A parsed file as text again, for the property that reading it back changes nothing.

use std::fmt::Write as _;

use super::super::ast::{
    Add, Body, CommandForm, CommandLine, Copy, Dockerfile, From, Head, Heredoc, Instruction, Network, Pair, PairForm,
    Run, Security, Transfer, Word,
};

/// Prints everything but places. `None` for the few things that have no plain form, such as a heredoc whose name needs
/// quotes inside quotes.
pub(super) fn print(file: &Dockerfile) -> Option<String> {
    let mut text = String::new();
    if file.escape == '`' {
        text.push_str("# escape=`\n");
    }
    if let Some(check) = &file.check {
        let _ok = writeln!(text, "# check={}", check.value);
    }
    // Ends the directives, so that no comment is taken for one.
    text.push_str("#\n");
    for instruction in &file.global_args {
        print_instruction(&mut text, instruction, file.escape)?;
    }
    for stage in &file.stages {
        print_head(&mut text, &stage.head)?;
        print_from(&mut text, &stage.from, file.escape)?;
        for instruction in &stage.commands {
            print_instruction(&mut text, instruction, file.escape)?;
        }
    }
    Some(text)
}

fn print_head(text: &mut String, head: &Head) -> Option<()> {
    for comment in &head.comments {
        // An indented comment keeps its `#`, and would lose it here.
        (!comment.starts_with('#')).then_some(())?;
        let _ok = writeln!(text, "# {comment}");
    }
    text.push_str(&head.keyword.value);
    Some(())
}

fn print_from(text: &mut String, from: &From, escape: char) -> Option<()> {
    flag(text, "platform", from.platform.as_ref(), escape);
    rest(text, &from.base.value);
    if let Some(alias) = &from.alias {
        let _ok = write!(text, " {} {}", alias.keyword.value, alias.written.value);
    }
    text.push('\n');
    Some(())
}

/// One flag; what would end the word or vanish is escaped.
fn flag(text: &mut String, name: &str, value: Option<&Word>, escape: char) {
    if let Some(value) = value {
        flag_text(text, name, &value.value, escape);
    }
}

fn flag_text(text: &mut String, name: &str, value: &str, escape: char) {
    let _ok = write!(text, " --{name}=");
    for c in value.chars() {
        if c.is_whitespace() || matches!(c, '\'' | '"') || c == escape {
            text.push(escape);
        }
        text.push(c);
    }
}

/// What follows the flags, kept from being one.
fn rest(text: &mut String, rest: &str) {
    let dashes = if rest.starts_with("--") { "-- " } else { "" };
    let _ok = write!(text, " {dashes}{rest}");
}

fn json(words: impl IntoIterator<Item = impl Into<String>>) -> String {
    let words: Vec<serde_json::Value> = words
        .into_iter()
        .map(|word| serde_json::Value::String(word.into()))
        .collect();
    serde_json::Value::from(words).to_string()
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.value.as_str()).collect()
}

fn print_instruction(text: &mut String, instruction: &Instruction, escape: char) -> Option<()> {
    print_head(text, &instruction.head)?;
    match &instruction.body {
        Body::Add(add) => print_add(text, add, escape)?,
        Body::Copy(copy) => print_copy(text, copy, escape)?,
        Body::Arg(items) => {
            let item = |item: &super::super::ast::ArgItem| match &item.default {
                Some(default) => format!("{}={default}", item.name),
                None => item.name.clone(),
            };
            rest(text, &items.iter().map(item).collect::<Vec<_>>().join(" "));
        }
        Body::Cmd(line) | Body::Entrypoint(line) => print_command(text, line)?,
        Body::Env(pairs) | Body::Label(pairs) => print_pairs(text, pairs),
        Body::Expose(ports) => rest(text, &texts(ports).join(" ")),
        Body::Healthcheck(check) => {
            let times = [
                ("interval", check.interval),
                ("timeout", check.timeout),
                ("start-period", check.start_period),
                ("start-interval", check.start_interval),
            ];
            for (name, time) in times.into_iter().filter(|(_, time)| *time != 0) {
                let _ok = write!(text, " --{name}={time}ns");
            }
            if check.retries != 0 {
                let _ok = write!(text, " --retries={}", check.retries);
            }
            match check.test.split_first()? {
                (kind, []) => rest(text, kind),
                (kind, [command]) if kind == "CMD-SHELL" => rest(text, &format!("CMD {command}")),
                (_, words) => rest(text, &format!("CMD {}", json(words))),
            }
        }
        Body::Maintainer(word) | Body::Stopsignal(word) | Body::User(word) | Body::Workdir(word) => {
            rest(text, &word.value);
        }
        Body::Onbuild(trigger) => rest(text, trigger),
        Body::Run(run) => print_run(text, run, escape)?,
        Body::Shell(words) | Body::Volume(words) => rest(text, &json(texts(words))),
        Body::From(_) => return None,
    }
    // A text that ends in the escape would go on in the next line.
    let continues = text.trim_end_matches([' ', '\t']).ends_with(escape);
    text.push_str(if continues { "\n\n" } else { "\n" });
    documents(text, &instruction.body)
}

fn print_pairs(text: &mut String, pairs: &[Pair]) {
    match pairs {
        [pair] if pair.form == PairForm::Legacy => rest(text, &format!("{} {}", pair.key, pair.value)),
        pairs => {
            let pair = |pair: &Pair| format!("{}={}", pair.key, pair.value);
            rest(text, &pairs.iter().map(pair).collect::<Vec<_>>().join(" "));
        }
    }
}

fn print_command(text: &mut String, line: &CommandLine) -> Option<()> {
    match (line.form, line.args.as_slice()) {
        (CommandForm::Exec, words) => rest(text, &json(words)),
        (CommandForm::Shell, []) => {}
        (CommandForm::Shell, [command]) => rest(text, command),
        (CommandForm::Shell, _) => return None,
    }
    Some(())
}

fn print_run(text: &mut String, run: &Run, escape: char) -> Option<()> {
    for mount in &run.mounts {
        flag(text, "mount", Some(&mount.text), escape);
    }
    match run.network {
        Network::Default => {}
        Network::None => text.push_str(" --network=none"),
        Network::Host => text.push_str(" --network=host"),
    }
    if run.security == Security::Insecure {
        text.push_str(" --security=insecure");
    }
    for device in &run.devices {
        // The value is CSV, and a name is quoted there when it must be.
        (!device.name.contains([',', '"', '\n'])).then_some(())?;
        let required = if device.required { ",required" } else { "" };
        flag_text(text, "device", &format!("name={}{required}", device.name), escape);
    }
    print_command(text, &run.command)
}

fn print_add(text: &mut String, add: &Add, escape: char) -> Option<()> {
    for (name, value) in [("keep-git-dir", add.keep_git_dir), ("unpack", add.unpack)] {
        if let Some(value) = value {
            let _ok = write!(text, " --{name}={value}");
        }
    }
    flag(text, "checksum", add.checksum.as_ref(), escape);
    print_transfer(text, &add.transfer, escape)
}

fn print_copy(text: &mut String, copy: &Copy, escape: char) -> Option<()> {
    flag(text, "from", copy.from.as_ref(), escape);
    if copy.parents {
        text.push_str(" --parents");
    }
    print_transfer(text, &copy.transfer, escape)
}

fn print_transfer(text: &mut String, transfer: &Transfer, escape: char) -> Option<()> {
    flag(text, "chown", transfer.chown.as_ref(), escape);
    flag(text, "chmod", transfer.chmod.as_ref(), escape);
    if transfer.link {
        text.push_str(" --link");
    }
    for pattern in &transfer.exclude {
        flag_text(text, "exclude", pattern, escape);
    }
    let mut words = texts(&transfer.sources);
    words.push(&transfer.destination.value);
    if transfer.documents.is_empty() {
        rest(text, &json(words));
        return Some(());
    }
    let names = transfer.documents.iter().map(opening).collect::<Option<Vec<_>>>()?;
    let at = words.len() - 1;
    let mut all: Vec<&str> = words[..at].to_vec();
    all.extend(names.iter().map(String::as_str));
    all.push(words[at]);
    rest(text, &all.join(" "));
    Some(())
}

fn opening(document: &Heredoc) -> Option<String> {
    let is_plain = !document.name.is_empty() && document.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_plain.then_some(())?;
    let dash = if document.chomp { "-" } else { "" };
    Some(match document.expand {
        true => format!("<<{dash}{}", document.name),
        false => format!("<<{dash}\"{}\"", document.name),
    })
}

/// The documents behind the line that opens them.
fn documents(text: &mut String, body: &Body) -> Option<()> {
    let documents = match body {
        Body::Run(run) => &run.command.heredocs,
        Body::Add(add) => &add.transfer.documents,
        Body::Copy(copy) => &copy.transfer.documents,
        _ => return Some(()),
    };
    for document in documents {
        text.push_str(std::str::from_utf8(&document.content).ok()?);
        let _ok = writeln!(text, "{}", document.name);
    }
    Some(())
}

//! One joined line to one instruction.

use cbs_image::config::Healthcheck;

use super::super::ast::{
    Add, Alias, ArgItem, Body, CommandForm, CommandLine, Copy, Device, From, Head, Heredoc, Network, Pair, PairForm,
    RawMount, Run, Security, Transfer, Word, description,
};
use super::super::go::{self, Case, quote, suggest};
use super::super::source::{Complaint, Spanned};
use super::flags::{Flags, Kind};
use super::heredoc::parse_word;
use super::json::{JsonForm, parse_json};
use super::line::{Line, Part};
use super::mount;
use super::words::{split_blanks, split_command, split_once, split_quoted};

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A line split into name, flags and the rest.
pub(super) struct Statement<'a> {
    line: Part<'a>,
    keyword: Part<'a>,
    flags: Vec<Word>,
    rest: Part<'a>,
}

/// An instruction's text in either form.
enum Form {
    Exec(Vec<Word>),
    Text,
}

impl<'a> Statement<'a> {
    pub(super) fn split(line: &'a Line, escape: char) -> Self {
        Self::split_part(line.all(), escape)
    }

    fn split_part(part: Part<'a>, escape: char) -> Self {
        let (keyword, flags, rest) = split_command(part, escape);
        Self {
            line: part,
            keyword,
            flags,
            rest,
        }
    }

    pub(super) fn keyword(&self) -> Word {
        Spanned::new(self.keyword.text().to_owned(), self.keyword.span())
    }

    fn name(&self) -> String {
        self.keyword.text().to_uppercase()
    }

    /// Whether `<<` means something here: in RUN, COPY and ADD, also behind ONBUILD, unless in JSON form.
    pub(super) fn takes_heredocs(&self) -> bool {
        let name = match self.name().as_str() {
            "ONBUILD" => self
                .rest
                .text()
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_uppercase(),
            other => other.to_owned(),
        };
        // The escape is irrelevant for where the rest begins, flags aside.
        let is_json = match self.name().as_str() {
            "ONBUILD" => parse_json(Statement::split_part(self.rest, '\\').rest) != JsonForm::NoJson,
            _ => parse_json(self.rest) != JsonForm::NoJson,
        };
        matches!(name.as_str(), "RUN" | "COPY" | "ADD") && !is_json
    }

    pub(super) fn parse(&self, head: &Head, heredocs: Vec<Heredoc>, escape: char) -> Result<Body, Complaint> {
        Ok(match self.name().as_str() {
            "ADD" => Body::Add(self.add(heredocs)?),
            "ARG" => Body::Arg(self.arg(&head.comments, escape)?),
            "CMD" => Body::Cmd(self.plain_command(heredocs)?),
            "COPY" => Body::Copy(self.copy(heredocs)?),
            "ENTRYPOINT" => Body::Entrypoint(self.plain_command(heredocs)?),
            "ENV" => Body::Env(self.pairs(escape)?),
            "EXPOSE" => Body::Expose(self.expose()?),
            "FROM" => Body::From(self.from()?),
            "HEALTHCHECK" => Body::Healthcheck(self.healthcheck()?),
            "LABEL" => Body::Label(self.pairs(escape)?),
            "MAINTAINER" => Body::Maintainer(self.one_argument()?),
            "ONBUILD" => Body::Onbuild(self.onbuild(&heredocs, escape)?),
            "RUN" => Body::Run(self.run(heredocs)?),
            "SHELL" => Body::Shell(self.shell()?),
            "STOPSIGNAL" => Body::Stopsignal(self.text_argument()?),
            "USER" => Body::User(self.one_argument()?),
            "VOLUME" => Body::Volume(self.volume()?),
            "WORKDIR" => Body::Workdir(self.one_argument()?),
            _ => {
                let written = self.keyword.text();
                let hint = suggest(written, NAMES, Case::Insensitive);
                let hint = hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default();
                return Err(Complaint::new(format!("unknown instruction: {written}{hint}")).at(self.keyword.span()));
            }
        })
    }

    fn form(&self, part: Part<'_>) -> Result<Form, Complaint> {
        match parse_json(part) {
            JsonForm::Strings(words) => Ok(Form::Exec(words)),
            JsonForm::NoJson => Ok(Form::Text),
            JsonForm::NotStrings => {
                let message = "when using JSON array syntax, arrays must be comprised of strings only";
                Err(Complaint::new(message).at(part.span()))
            }
        }
    }

    fn no_flags(&self) -> Result<(), Complaint> {
        Flags::parse(&self.flags, &[]).map(|_| ())
    }

    fn needs(&self, what: &str) -> Complaint {
        Complaint::new(format!("{} requires {what}", self.name())).at(self.keyword.span())
    }

    /// The whole rest as one argument.
    fn text_argument(&self) -> Result<Word, Complaint> {
        if self.rest.text().is_empty() {
            return Err(self.needs("exactly one argument"));
        }
        Ok(Spanned::new(self.rest.text().to_owned(), self.rest.span()))
    }

    fn one_argument(&self) -> Result<Word, Complaint> {
        let word = self.text_argument()?;
        self.no_flags()?;
        Ok(word)
    }

    fn command_line(&self, part: Part<'_>, heredocs: Vec<Heredoc>) -> Result<CommandLine, Complaint> {
        Ok(match self.form(part)? {
            Form::Exec(words) => CommandLine {
                args: values(words),
                form: CommandForm::Exec,
                heredocs,
            },
            Form::Text if part.text().is_empty() => CommandLine {
                heredocs,
                ..CommandLine::default()
            },
            Form::Text => CommandLine {
                args: vec![part.text().to_owned()],
                form: CommandForm::Shell,
                heredocs,
            },
        })
    }

    fn plain_command(&self, heredocs: Vec<Heredoc>) -> Result<CommandLine, Complaint> {
        let command = self.command_line(self.rest, heredocs)?;
        self.no_flags()?;
        Ok(command)
    }

    fn words_or_json(&self) -> Result<Vec<Word>, Complaint> {
        Ok(match self.form(self.rest)? {
            Form::Exec(words) => words,
            Form::Text => split_blanks(self.rest),
        })
    }

    fn pairs(&self, escape: char) -> Result<Vec<Pair>, Complaint> {
        let pairs = self.read_pairs(escape)?;
        self.no_flags()?;
        if pairs.is_empty() {
            return Err(self.needs("at least one argument"));
        }
        if pairs.iter().any(|pair| pair.key.is_empty()) {
            return Err(Complaint::new(format!("{} names can not be blank", self.name())).at(self.rest.span()));
        }
        Ok(pairs)
    }

    /// `k=v …`, or the old `k v` when the first word has no `=`.
    fn read_pairs(&self, escape: char) -> Result<Vec<Pair>, Complaint> {
        let words = split_quoted(self.rest, escape);
        let Some(first) = words.first() else {
            return Ok(Vec::new());
        };
        if !first.value.contains('=') {
            let (key, value) = split_once(self.rest).ok_or_else(|| {
                Complaint::new(format!("{} must have two arguments", self.name())).at(self.rest.span())
            })?;
            let (key, value) = (key.text().to_owned(), value.text().to_owned());
            return Ok(vec![Pair {
                key,
                value,
                form: PairForm::Legacy,
            }]);
        }
        let read = |word: &Word| match word.value.split_once('=') {
            Some((key, value)) => Ok(Pair {
                key: key.to_owned(),
                value: value.to_owned(),
                form: PairForm::Equals,
            }),
            None => {
                let word_text = quote(&word.value);
                let message = format!(
                    "Syntax error - can't find = in {word_text} of {}. Must be of the form: name=value",
                    self.name()
                );
                Err(Complaint::new(message).at(word.span))
            }
        };
        words.iter().map(read).collect()
    }

    /// Flags in front of ARG are dropped without a word, as BuildKit does.
    fn arg(&self, comments: &[String], escape: char) -> Result<Vec<ArgItem>, Complaint> {
        let words = split_quoted(self.rest, escape);
        if words.is_empty() {
            return Err(self.needs("at least one argument"));
        }
        let read = |word: Word| {
            let (name, default) = match word.value.split_once('=') {
                Some(("", _)) => return Err(Complaint::new("ARG names can not be blank").at(word.span)),
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word.value, None),
            };
            let description = description(comments, &name);
            Ok(ArgItem {
                name,
                default,
                description,
            })
        };
        words.into_iter().map(read).collect()
    }

    fn expose(&self) -> Result<Vec<Word>, Complaint> {
        let mut ports = split_blanks(self.rest);
        if ports.is_empty() {
            return Err(self.needs("at least one argument"));
        }
        self.no_flags()?;
        ports.sort_by(|a, b| a.value.cmp(&b.value));
        Ok(ports)
    }

    fn volume(&self) -> Result<Vec<Word>, Complaint> {
        let mut volumes = self.words_or_json()?;
        if volumes.is_empty() {
            return Err(self.needs("at least one argument"));
        }
        self.no_flags()?;
        for volume in &mut volumes {
            volume.value = volume.value.trim().to_owned();
            if volume.value.is_empty() {
                return Err(Complaint::new("VOLUME specified can not be an empty string").at(volume.span));
            }
        }
        Ok(volumes)
    }

    fn shell(&self) -> Result<Vec<Word>, Complaint> {
        let form = self.form(self.rest)?;
        self.no_flags()?;
        match form {
            Form::Exec(words) if !words.is_empty() => Ok(words),
            Form::Text if !self.rest.text().is_empty() => {
                let message = format!("SHELL requires the arguments to be in JSON form: {}", self.rest.text());
                Err(Complaint::new(message)
                    .at(self.rest.span())
                    .help("write SHELL [\"executable\", \"parameters\"]"))
            }
            _ => Err(self.needs("at least one argument")),
        }
    }

    fn from(&self) -> Result<From, Complaint> {
        let words = split_blanks(self.rest);
        let alias = match words.as_slice() {
            [_] => None,
            [_, keyword, written] if keyword.value.eq_ignore_ascii_case("as") => {
                let name = written.value.to_lowercase();
                let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
                let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
                if !starts || !name.chars().all(rest) {
                    let written_text = quote(&written.value);
                    let message = format!(
                        "invalid name for build stage: {written_text}, name can't start with a number or contain symbols"
                    );
                    return Err(Complaint::new(message).at(written.span));
                }
                Some(Alias {
                    keyword: keyword.clone(),
                    written: written.clone(),
                    name,
                })
            }
            _ => return Err(Complaint::new("FROM requires either one or three arguments")),
        };
        let flags = Flags::parse(&self.flags, &[("platform", Kind::Value)])?;
        let base = words.into_iter().next().unwrap_or_default();
        Ok(From {
            base,
            platform: flags.value("platform"),
            alias,
        })
    }

    fn onbuild(&self, heredocs: &[Heredoc], escape: char) -> Result<String, Complaint> {
        let trigger = Statement::split_part(self.rest, escape);
        let name = trigger.name();
        if name.is_empty() {
            return Err(self.needs("at least one argument"));
        }
        // Triggers are checked when they run; only what breaks the reading of the line shows here.
        match name.as_str() {
            "ENV" | "LABEL" => drop(trigger.read_pairs(escape)?),
            "ADD" | "CMD" | "COPY" | "ENTRYPOINT" | "RUN" | "SHELL" | "VOLUME" => drop(trigger.form(trigger.rest)?),
            _ => {}
        }
        self.no_flags()?;
        match name.as_str() {
            "ONBUILD" => {
                return Err(
                    Complaint::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed").at(trigger.keyword.span())
                );
            }
            "MAINTAINER" | "FROM" => {
                let message = format!("{name} isn't allowed as an ONBUILD trigger");
                return Err(Complaint::new(message).at(trigger.keyword.span()));
            }
            _ => {}
        }
        // Blanks at the end are part of the trigger.
        let mut expression = self
            .line
            .trim_start()
            .from(self.keyword.text().len())
            .trim_start()
            .text()
            .to_owned();
        for document in heredocs {
            expression.push('\n');
            expression.push_str(&String::from_utf8_lossy(&document.content));
            expression.push_str(&document.name);
        }
        Ok(expression)
    }

    fn transfer(&self, flags: &Flags, heredocs: Vec<Heredoc>) -> Result<Transfer, Complaint> {
        let mut words = self.words_or_json()?;
        let destination = words.pop().unwrap_or_default();
        if parse_word(&destination.value).is_some() {
            let message = format!("{} cannot accept a heredoc as a destination", self.name());
            return Err(Complaint::new(message).at(destination.span));
        }
        let mut transfer = Transfer {
            destination,
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.switch("link").unwrap_or(false),
            exclude: flags.all("exclude").map(|word| word.value.clone()).collect(),
            ..Transfer::default()
        };
        for word in words {
            let Some(opening) = parse_word(&word.value) else {
                transfer.sources.push(word);
                continue;
            };
            // The last document of a name serves every word of it.
            let found = heredocs.iter().rev().find(|document| document.name == opening.name);
            let content = found.map(|document| document.content.clone()).unwrap_or_default();
            transfer.documents.push(Heredoc { content, ..opening });
        }
        Ok(transfer)
    }

    fn count_paths(&self) -> Result<(), Complaint> {
        if self.words_or_json()?.len() >= 2 {
            return Ok(());
        }
        let message = format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            self.name()
        );
        Err(Complaint::new(message).at(self.keyword.span()))
    }

    fn add(&self, heredocs: Vec<Heredoc>) -> Result<Add, Complaint> {
        self.count_paths()?;
        let known = [
            ("chown", Kind::Value),
            ("chmod", Kind::Value),
            ("link", Kind::Switch),
            ("keep-git-dir", Kind::Switch),
            ("checksum", Kind::Value),
            ("unpack", Kind::Switch),
            ("exclude", Kind::Values),
        ];
        let flags = Flags::parse(&self.flags, &known)?;
        Ok(Add {
            transfer: self.transfer(&flags, heredocs)?,
            keep_git_dir: flags.switch("keep-git-dir"),
            checksum: flags.value("checksum"),
            unpack: flags.switch("unpack"),
        })
    }

    fn copy(&self, heredocs: Vec<Heredoc>) -> Result<Copy, Complaint> {
        self.count_paths()?;
        let known = [
            ("chown", Kind::Value),
            ("from", Kind::Value),
            ("chmod", Kind::Value),
            ("link", Kind::Switch),
            ("exclude", Kind::Values),
            ("parents", Kind::Switch),
        ];
        let flags = Flags::parse(&self.flags, &known)?;
        Ok(Copy {
            transfer: self.transfer(&flags, heredocs)?,
            from: flags.value("from"),
            parents: flags.switch("parents").unwrap_or(false),
        })
    }

    fn run(&self, heredocs: Vec<Heredoc>) -> Result<Run, Complaint> {
        let command = self.command_line(self.rest, heredocs)?;
        let known = [
            ("mount", Kind::Values),
            ("network", Kind::Value),
            ("security", Kind::Value),
            ("device", Kind::Values),
        ];
        let flags = Flags::parse(&self.flags, &known)?;
        let mounts = flags.all("mount").map(|text| {
            let from = mount::source_of(&text.value).map_err(|message| Complaint::new(message).at(text.span))?;
            Ok(RawMount {
                text: text.clone(),
                from,
            })
        });
        let network = match flags.get("network") {
            None => Network::Default,
            Some(word) => match word.value.as_str() {
                "default" => Network::Default,
                "none" => Network::None,
                "host" => Network::Host,
                other => {
                    return Err(Complaint::new(format!("invalid network mode {}", quote(other))).at(word.span));
                }
            },
        };
        let security = match flags.get("security") {
            None => Security::Sandbox,
            Some(word) => match word.value.as_str() {
                "sandbox" => Security::Sandbox,
                "insecure" => Security::Insecure,
                other => return Err(Complaint::new(format!("security {} is not valid", quote(other))).at(word.span)),
            },
        };
        Ok(Run {
            command,
            mounts: mounts.collect::<Result<_, Complaint>>()?,
            network,
            security,
            devices: flags.all("device").map(device).collect::<Result<_, _>>()?,
        })
    }

    fn healthcheck(&self) -> Result<Healthcheck, Complaint> {
        let text = self.rest.text();
        if text.is_empty() {
            return Err(self.needs("at least one argument"));
        }
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let command = self.command_line(self.rest.from(end).trim(), Vec::new())?;
        let kind = text[..end].to_uppercase();
        if kind == "NONE" {
            if !command.args.is_empty() {
                return Err(Complaint::new("HEALTHCHECK NONE takes no arguments").at(self
                    .rest
                    .from(end)
                    .trim()
                    .span()));
            }
            return Ok(Healthcheck {
                test: vec![kind],
                ..Healthcheck::default()
            });
        }
        let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
        let flags = Flags::parse(&self.flags, &names.map(|name| (name, Kind::Value)))?;
        if kind != "CMD" {
            let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind));
            return Err(Complaint::new(message).at(self.rest.part(0, end).span()));
        }
        if command.args.is_empty() {
            return Err(Complaint::new("Missing command after HEALTHCHECK CMD").at(self.rest.span()));
        }
        let kind = match command.form {
            CommandForm::Exec => "CMD",
            CommandForm::Shell => "CMD-SHELL",
        };
        let mut test = vec![kind.to_owned()];
        test.extend(command.args);
        Ok(Healthcheck {
            test,
            interval: interval(&flags, "interval")?,
            timeout: interval(&flags, "timeout")?,
            start_period: interval(&flags, "start-period")?,
            start_interval: interval(&flags, "start-interval")?,
            retries: retries(&flags)?,
        })
    }
}

fn values(words: Vec<Word>) -> Vec<String> {
    words.into_iter().map(|word| word.value).collect()
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Complaint> {
    let Some(word) = flags.value(name) else { return Ok(0) };
    let nanoseconds = go::parse_duration(&word.value)
        .ok_or_else(|| Complaint::new(format!("invalid duration {} for --{name}", quote(&word.value))).at(word.span))?;
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        return Err(Complaint::new(format!("Interval {} cannot be less than 1ms", quote(name))).at(word.span));
    }
    Ok(nanoseconds)
}

fn retries(flags: &Flags) -> Result<i64, Complaint> {
    let Some(word) = flags.value("retries") else {
        return Ok(0);
    };
    match word.value.parse::<i32>() {
        Ok(count) if count >= 0 => Ok(count.into()),
        Ok(count) => Err(Complaint::new(format!("--retries cannot be negative ({count})")).at(word.span)),
        Err(_) => Err(Complaint::new(format!("invalid number {} for --retries", quote(&word.value))).at(word.span)),
    }
}

/// `NAME`, `name=NAME`, and `required`.
fn device(word: &Word) -> Result<Device, Complaint> {
    let complain = |message: String| Complaint::new(message).at(word.span);
    let fields = go::csv_fields(&word.value).ok_or_else(|| complain("failed to parse csv devices".to_owned()))?;
    let mut device = Device::default();
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                device.required =
                    go::parse_bool(value).ok_or_else(|| complain(format!("invalid value for required: {value}")))?;
            }
            ("name", Some(value)) if device.name.is_empty() => device.name = value.to_owned(),
            ("name", Some(_)) => return Err(complain(format!("device name already set to {}", device.name))),
            // A name such as `vendor.com/gpu=0` holds an equals sign itself.
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(complain(format!("invalid field '{field}' must be a key=value pair"))),
            (key, Some(_)) => {
                let hint = suggest(key, ["name", "required"], Case::Sensitive);
                let hint = hint.map(|hint| format!(" (did you mean {hint}?)")).unwrap_or_default();
                return Err(complain(format!("unexpected key '{key}' in '{field}'{hint}")));
            }
        }
    }
    Ok(device)
}

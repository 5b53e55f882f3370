//! One joined line to one instruction.

use super::super::ast::{
    Alias, ArgItem, Body, CommandForm, CommandLine, From, Head, Heredoc, Pair, PairForm, Word, description,
};
use super::super::go::{Case, quote, suggest};
use super::super::source::{Complaint, Spanned};
use super::flags::{Flags, Kind};
use super::json::{JsonForm, parse_json};
use super::line::{Line, Part};
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
    pub(super) keyword: Part<'a>,
    pub(super) flags: Vec<Word>,
    pub(super) rest: Part<'a>,
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

    pub(super) fn name(&self) -> String {
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

    pub(super) fn needs(&self, what: &str) -> Complaint {
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

    pub(super) fn command_line(&self, part: Part<'_>, heredocs: Vec<Heredoc>) -> Result<CommandLine, Complaint> {
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

    pub(super) fn words_or_json(&self) -> Result<Vec<Word>, Complaint> {
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
}

fn values(words: Vec<Word>) -> Vec<String> {
    words.into_iter().map(|word| word.value).collect()
}

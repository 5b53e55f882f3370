//! The `--name=value` flags of instructions.

use super::super::ast::Word;
use super::super::go::meant;
use super::super::source::Complaint;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, `=true` or `=false`; once.
    Switch,
    /// A value; once.
    Value,
    /// A value, any number of times.
    Values,
}

/// The flags of one instruction, checked against what it knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags(Vec<(&'static str, Word)>);

impl Flags {
    pub(super) fn parse(words: &[Word], known: &[(&'static str, Kind)]) -> Result<Self, Complaint> {
        let mut flags = Self::default();
        for word in words {
            let body = word.value.strip_prefix("--").unwrap_or(&word.value);
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let complain = |message: String| Complaint::new(message).at(word.span);
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let names: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
                return Err(complain(format!("unknown flag: --{name}{}", meant(name, &names))));
            };
            if kind != Kind::Values && flags.get(name).is_some() {
                return Err(complain(format!("duplicate flag specified: --{name}")));
            }
            let value = match (kind, value) {
                (Kind::Switch, None) => "true".to_owned(),
                (Kind::Switch, Some("")) | (Kind::Value | Kind::Values, None) => {
                    return Err(complain(format!("missing a value on flag: --{name}")));
                }
                (Kind::Switch, Some(value)) => match value.to_lowercase().as_str() {
                    value @ ("true" | "false") => value.to_owned(),
                    _ => {
                        return Err(complain(format!(
                            "expecting boolean value for flag --{name}, not: {value} (there are true and false)"
                        )));
                    }
                },
                (_, Some(value)) => value.to_owned(),
            };
            flags.0.push((name, Word { value, span: word.span }));
        }
        Ok(flags)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Word> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Word> {
        self.0
            .iter()
            .filter(move |(flag, _)| *flag == name)
            .map(|(_, word)| word)
    }

    /// A value, where an empty one is none.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        self.get(name).filter(|word| !word.value.is_empty()).cloned()
    }

    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.get(name).map(|word| word.value == "true")
    }
}

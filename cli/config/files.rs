//! Where settings are, and reading them.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use toml_edit::{DocumentMut, Item, Table};

use super::Config;

/// The file of the machine.
const SYSTEM: &str = "/etc/cbs/config.toml";

/// Which file a setting is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// `/etc/cbs/config.toml`.
    System,
    /// `$XDG_CONFIG_HOME/cbs/config.toml`.
    User,
    /// What `--config` names.
    Only,
}

impl Layer {
    /// A word for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Only => "--config",
        }
    }
}

/// The files that settings come from, whether they exist or not; later ones win.
#[derive(Clone, Debug)]
pub(crate) struct Files(pub(crate) Vec<(Layer, PathBuf)>);

/// A file cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}{excerpt}")]
pub(crate) struct ConfigError {
    file: String,
    line: usize,
    column: usize,
    message: String,
    excerpt: String,
}

impl Files {
    /// The files of this machine and user, or the one that was named.
    pub(crate) fn of(named: Option<&Path>) -> Self {
        if let Some(path) = named {
            return Self(vec![(Layer::Only, path.to_owned())]);
        }
        let mut files = vec![(Layer::System, PathBuf::from(SYSTEM))];
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        files.extend(folder.map(|folder| (Layer::User, folder.join("cbs/config.toml"))));
        Self(files)
    }

    /// The settings, and the document they were read from.
    ///
    /// # Errors
    /// When a file cannot be read or understood, or a file that was named is not there.
    pub(crate) fn load(&self) -> anyhow::Result<(Config, Table)> {
        let mut merged = Table::new();
        for (layer, path) in &self.0 {
            let shown = path.display().to_string();
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(err) if err.kind() == io::ErrorKind::NotFound && *layer != Layer::Only => continue,
                Err(err) => return Err(err).with_context(|| format!("cannot read the settings in `{shown}`")),
            };
            let (_, document) = parse(&shown, &text)?;
            merge(&mut merged, document.as_table());
        }
        // Each file is valid by itself, and so is one laid over the other.
        let config = Config::deserialize(DocumentMut::from(merged.clone()).into_deserializer())?;
        Ok((config, merged))
    }
}

/// Reads one file.
pub(crate) fn parse(file: &str, text: &str) -> Result<(Config, DocumentMut), ConfigError> {
    let fail = |message: &str, span: Option<std::ops::Range<usize>>| at(file, text, message, span);
    // Twice: only a document that cannot be changed knows where its values were.
    let read: Result<Config, toml_edit::de::Error> = toml_edit::de::from_str(text);
    let config = read.map_err(|err| fail(err.message(), err.span()))?;
    let document = text.parse::<DocumentMut>();
    let document = document.map_err(|err| fail(err.message(), err.span()))?;
    Ok((config, document))
}

fn at(file: &str, text: &str, message: &str, span: Option<std::ops::Range<usize>>) -> ConfigError {
    let start = span.map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let content = text.lines().nth(line - 1).unwrap_or_default();
    let margin = " ".repeat(line.to_string().len());
    let indent = " ".repeat(column - 1);
    ConfigError {
        file: file.to_owned(),
        line,
        column,
        message: message.trim().replace('\n', "; "),
        excerpt: format!("\n{margin} |\n{line} | {content}\n{margin} | {indent}^"),
    }
}

fn merge(into: &mut Table, from: &Table) {
    for (key, item) in from {
        match (into.get_mut(key).and_then(Item::as_table_mut), item.as_table()) {
            (Some(into), Some(from)) => merge(into, from),
            _ => drop(into.insert(key, item.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_wins_key_by_key() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (system, user) = (folder.path().join("s"), folder.path().join("u"));
        std::fs::write(
            &system,
            "store = '/s'\n[build]\njobs = 2\nplatforms = ['linux/amd64']\n",
        )
        .expect("write");
        std::fs::write(&user, "[build]\njobs = 5\n[registry.x]\nhttp = true\n").expect("write");
        let files = Files(vec![
            (Layer::System, system),
            (Layer::User, user),
            (Layer::User, folder.path().join("no")),
        ]);
        let (config, _) = files.load().expect("loads");
        assert_eq!(config.store, Some(PathBuf::from("/s")));
        assert_eq!(config.build.jobs.map(usize::from), Some(5));
        assert_eq!(config.build.platforms.len(), 1);
        assert!(config.registry["x"].http);
    }

    #[test]
    fn a_file_that_was_named_must_exist() {
        let files = Files::of(Some(Path::new("/nowhere/config.toml")));
        let message = format!("{:#}", files.load().expect_err("absent"));
        assert!(message.contains("/nowhere/config.toml"), "{message}");
    }
}

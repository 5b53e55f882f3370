//! Changing a file of settings; what people wrote beside the changed value stays.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::files::parse;

/// What to do with a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'t> {
    /// Give it this value, in TOML; a text that is no TOML stands for itself.
    Set(&'t str),
    /// Leave it to its default.
    Unset,
}

/// Changes one setting of a file, which is made if it is not there. Nothing is written that could not be read again.
///
/// # Errors
/// When the file cannot be read, understood or written, or the value does not fit.
pub(crate) fn edit(path: &Path, parts: &[String], change: Change<'_>) -> anyhow::Result<()> {
    let shown = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read the settings in `{shown}`"))?,
    };
    let (_, mut document) = parse(&shown, &text)?;
    let text = changed(&mut document, parts, change).with_context(|| format!("`{}`", parts.join(".")))?;
    write(path, &text).with_context(|| format!("cannot write `{shown}`"))
}

fn changed(document: &mut DocumentMut, parts: &[String], change: Change<'_>) -> anyhow::Result<String> {
    let Some((last, folders)) = parts.split_last() else {
        bail!("a name is expected")
    };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for part in folders {
        if matches!(change, Change::Unset) && !table.contains_key(part) {
            break;
        }
        let item = table.entry(part).or_insert_with(|| {
            let mut table = Table::new();
            // `[registry]` above `[registry."docker.io"]` says nothing.
            table.set_implicit(true);
            Item::Table(table)
        });
        table = item
            .as_table_like_mut()
            .with_context(|| format!("`{part}` is no table"))?;
    }
    match change {
        Change::Unset => drop(table.remove(last)),
        Change::Set(text) => {
            let mut value = text.parse::<Value>().unwrap_or_else(|_| Value::from(text));
            // In its place, so that the comments around it stay.
            match table.get_mut(last) {
                Some(item) => {
                    if let Some(old) = item.as_value() {
                        *value.decor_mut() = old.decor().clone();
                    }
                    *item = Item::Value(value);
                }
                None => drop(table.insert(last, Item::Value(value))),
            }
        }
    }
    let text = document.to_string();
    if let Err(first) = parse("the new settings", &text) {
        // `set store 7` means a folder called 7.
        match change {
            Change::Set(plain) if plain.parse::<Value>().is_ok_and(|value| !value.is_str()) => {
                let quoted = Value::from(plain).to_string();
                return changed(document, parts, Change::Set(quoted.trim())).map_err(|_| first.into());
            }
            _ => return Err(first.into()),
        }
    }
    Ok(text)
}

/// The old file or the new one, never half of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // A link to a file that is kept elsewhere stays a link.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let written = std::fs::File::create(&name).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let done = written.and_then(|()| std::fs::rename(&name, &path));
    if done.is_err() {
        std::fs::remove_file(&name).unwrap_or_default();
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::known;

    #[test]
    fn what_people_wrote_stays() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("sub/config.toml");
        let set = |key: &str, value: &str| edit(&path, &known(key).expect("known"), Change::Set(value));
        set("build.jobs", "3").expect("sets");
        set("registry.\"docker.io\".mirrors", "['m.example']").expect("sets");
        set("store", "/data/cbs").expect("sets");
        let mut text = std::fs::read_to_string(&path).expect("read");
        text = text.replace("jobs = 3", "# not too many\njobs = 3 # cores");
        std::fs::write(&path, text).expect("write");
        set("build.jobs", "4").expect("sets");
        let text = std::fs::read_to_string(&path).expect("read");
        for line in [
            "store = \"/data/cbs\"",
            "# not too many",
            "jobs = 4 # cores",
            "[registry.\"docker.io\"]",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        edit(&path, &known("build.jobs").expect("known"), Change::Unset).expect("unsets");
        edit(&path, &known("registry.x.http").expect("known"), Change::Unset).expect("unsets nothing");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(!text.contains("jobs") && !text.contains("[registry.x]"), "{text}");
    }

    #[test]
    fn a_value_that_does_not_fit_changes_nothing() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("config.toml");
        for (key, value) in [
            ("build.jobs", "many"),
            ("build.progress", "loud"),
            ("build.platforms", "7"),
        ] {
            let parts = known(key).expect("known");
            assert!(edit(&path, &parts, Change::Set(value)).is_err(), "{key}");
        }
        assert!(!path.exists());
        edit(&path, &known("store").expect("known"), Change::Set("7")).expect("a folder called 7");
    }
}

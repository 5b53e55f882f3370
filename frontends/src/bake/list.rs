//! `--list`: what a definition offers, as a table or as JSON.

use serde_json::{Map, Value as Json};

use super::csv_line::split_fields;
use super::error::BakeError;
use super::model::{Group, Target};
use super::program::Variable;

/// What to list, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What to list.
    pub what: Listed,
    /// How it looks.
    pub format: ListFormat,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Targets and groups.
    Targets,
    /// Variables.
    Variables,
}

/// How a list looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// Columns of text.
    Table,
    /// One JSON array.
    Json,
}

impl Listing {
    /// Reads the value of `--list`: `targets`, `variables`, or `type=…,format=…`.
    ///
    /// # Errors
    /// [`BakeError::Flag`] when it is malformed.
    pub fn parse(text: &str) -> Result<Listing, BakeError> {
        let fail = |reason: String| BakeError::Flag {
            flag: "--list",
            value: String::from(text),
            reason,
        };
        let fields = split_fields(text, ',').map_err(fail)?;
        let mut what = String::new();
        let mut format = String::from("table");
        for (index, field) in fields.iter().enumerate() {
            match field.split_once('=') {
                None if index == 0 => what.clone_from(field),
                None => return Err(fail(format!("{field:?} must have the form key=value"))),
                Some((key, value)) => match key.trim().to_lowercase().as_str() {
                    "type" => what = String::from(value),
                    "format" => format = String::from(value),
                    key => return Err(fail(format!("unknown key {key:?}; there are type and format"))),
                },
            }
        }
        let what = match what.as_str() {
            "targets" => Listed::Targets,
            "variables" => Listed::Variables,
            other => {
                return Err(fail(format!(
                    "{other:?} cannot be listed; there are targets and variables"
                )));
            }
        };
        let format = match format.as_str() {
            "table" => ListFormat::Table,
            "json" => ListFormat::Json,
            other => return Err(fail(format!("unknown format {other:?}; there are table and json"))),
        };
        Ok(Listing { what, format })
    }
}

/// Targets and groups, except for those that are meant to be inherited only.
pub(crate) fn targets(targets: &[Target], groups: &[Group], format: ListFormat) -> String {
    struct Row<'d> {
        name: &'d str,
        description: String,
        is_group: bool,
    }
    let mut rows: Vec<Row<'_>> = targets
        .iter()
        .map(|target| Row {
            name: &target.name,
            description: target.description.clone(),
            is_group: false,
        })
        .collect();
    rows.extend(groups.iter().map(|group| {
        let mut members = group.targets.clone();
        members.sort();
        let members = members.join(", ");
        let description = match (group.description.is_empty(), members.is_empty()) {
            (true, _) => members,
            (false, true) => group.description.clone(),
            (false, false) => format!("{} ({members})", group.description),
        };
        Row {
            name: &group.name,
            description,
            is_group: true,
        }
    }));
    rows.retain(|row| !row.name.starts_with('_'));
    rows.sort_by_key(|row| row.name);
    match format {
        ListFormat::Table => {
            let lines = rows
                .into_iter()
                .map(|row| vec![String::from(row.name), row.description]);
            table(&["TARGET", "DESCRIPTION"], lines)
        }
        ListFormat::Json => array(rows.into_iter().map(|row| {
            let mut fields = Map::new();
            fields.insert(String::from("name"), Json::from(row.name));
            insert_filled(&mut fields, "description", &row.description);
            if row.is_group {
                fields.insert(String::from("group"), Json::Bool(true));
            }
            fields
        })),
    }
}

/// Variables with their values.
pub(crate) fn variables(variables: &[Variable], format: ListFormat) -> String {
    let mut variables: Vec<&Variable> = variables.iter().collect();
    variables.sort_by_key(|variable| &variable.name);
    match format {
        ListFormat::Table => {
            let lines = variables.into_iter().map(|variable| {
                let value = variable.value.clone().unwrap_or_else(|| String::from("<null>"));
                vec![
                    variable.name.clone(),
                    variable.kind.clone(),
                    value,
                    variable.description.clone(),
                ]
            });
            table(&["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"], lines)
        }
        ListFormat::Json => array(variables.into_iter().map(|variable| {
            let mut fields = Map::new();
            fields.insert(String::from("name"), Json::from(variable.name.as_str()));
            insert_filled(&mut fields, "description", &variable.description);
            insert_filled(&mut fields, "type", &variable.kind);
            if let Some(value) = &variable.value {
                fields.insert(String::from("value"), Json::from(value.as_str()));
            }
            fields
        })),
    }
}

fn insert_filled(fields: &mut Map<String, Json>, key: &str, text: &str) {
    if !text.is_empty() {
        fields.insert(String::from(key), Json::from(text));
    }
}

fn array(items: impl Iterator<Item = Map<String, Json>>) -> String {
    format!("{:#}\n", Json::Array(items.map(Json::Object).collect()))
}

/// Cells aligned with tabs. Line breaks within a cell would break the table, so they become blanks.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    const TAB: usize = 8;
    let one_line = |cell: String| {
        if cell.contains(['\n', '\r', '\t']) {
            cell.replace(['\n', '\r', '\t'], " ")
        } else {
            cell
        }
    };
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|cell| String::from(*cell)).collect()];
    lines.extend(rows.map(|row| row.into_iter().map(one_line).collect()));
    let width = |cell: &String| cell.chars().count();
    let columns: Vec<usize> = (0..head.len())
        .map(|column| {
            let widest = lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(width)
                .max()
                .unwrap_or(0);
            (widest + 1).div_ceil(TAB) * TAB
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < line.len() {
                let missing = columns[column] - width(cell);
                text.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
            }
        }
        text.push('\n');
    }
    text
}

//! Paths and names.

use super::semver::semvercmp;
use super::{Function, function, text};
use crate::bake::paths::{base_name, parent};
use crate::bake::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    function!("basename", [("path", String)], |_, args| Ok(Value::from(base_name(
        text(&args[0])
    )))),
    function!("dirname", [("path", String)], |_, args| Ok(Value::string(&parent(
        text(&args[0])
    )))),
    function!("homedir", [], |environment, _| Ok(Value::from(environment.home))),
    function!("sanitize", [("name", String)], |_, args| Ok(Value::string(&sanitize(
        text(&args[0])
    )))),
    function!("semvercmp", [("version", String), ("constraint", String)], semvercmp),
];

/// Every character that a target name cannot have becomes an underscore.
fn sanitize(name: &str) -> String {
    name.chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() || matches!(char, '_' | '-') {
                char
            } else {
                '_'
            }
        })
        .collect()
}

//! Where results go.

use std::io;

use super::super::entries::{Output, parse_bool};
use super::super::host::FileKind;
use super::super::paths::resolve;
use super::Surroundings;

/// What an exporter writes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Nothing,
    File,
    Folder,
}

impl Surroundings<'_> {
    /// Checks the outputs. An archive without a destination gets stdout, also where it is printed.
    pub(super) fn outputs(&self, outputs: &mut [Output]) -> Result<Vec<Output>, String> {
        let mut stdout_is_used = false;
        let mut checked = Vec::with_capacity(outputs.len());
        for output in outputs {
            if output.kind.is_empty() {
                return Err(String::from("a type is required, as in type=local"));
            }
            let shape = shape(output);
            let kind = output.kind.clone();
            if shape == Shape::File && output.destination.is_empty() && kind != "docker" {
                output.destination = String::from("-");
            }
            let to_stdout = output.destination == "-";
            match shape {
                Shape::Folder if output.destination.is_empty() => {
                    return Err(format!("dest is required for type={kind}"));
                }
                Shape::Folder if to_stdout => return Err(format!("dest cannot be stdout for type={kind}")),
                Shape::File if to_stdout && stdout_is_used => {
                    return Err(String::from("several outputs are written to stdout"));
                }
                Shape::File if to_stdout => stdout_is_used = true,
                _ => {}
            }
            let mut ready = output.clone();
            if shape != Shape::Nothing && !to_stdout && !output.destination.is_empty() {
                ready.destination = resolve(&self.options.working_directory, &output.destination);
                self.check_destination(&output.destination, &ready.destination, shape)?;
            }
            if kind == "registry" {
                ready.kind = String::from("image");
                ready.attributes.insert(String::from("push"), String::from("true"));
                // What is only pushed need not be unpacked.
                ready
                    .attributes
                    .entry(String::from("unpack"))
                    .or_insert_with(|| String::from("false"));
            }
            checked.push(ready);
        }
        Ok(checked)
    }

    fn check_destination(&self, written: &str, path: &str, shape: Shape) -> Result<(), String> {
        match (self.host.kind(path), shape) {
            (Ok(FileKind::Directory), Shape::File) => Err(format!("the destination file {written:?} is a directory")),
            (Ok(FileKind::Directory), _) | (Ok(_), Shape::File | Shape::Nothing) => Ok(()),
            (Ok(_), Shape::Folder) => Err(format!("the destination directory {written:?} is a file")),
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            (Err(error), _) => Err(format!("the destination {written:?} cannot be used: {error}")),
        }
    }
}

fn shape(output: &Output) -> Shape {
    match output.kind.as_str() {
        "local" => Shape::Folder,
        "tar" => Shape::File,
        "oci" | "docker" => {
            let is_archive = output.attributes.get("tar").and_then(|text| parse_bool(text)) != Some(false);
            if is_archive { Shape::File } else { Shape::Folder }
        }
        _ => Shape::Nothing,
    }
}

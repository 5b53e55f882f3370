//! `--output` values: `type=oci,dest=app.tar,compression=zstd` and the short forms docker knows.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a result becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// An OCI image layout.
    Oci,
    /// An archive `docker load` reads.
    Docker,
    /// The root file system as one tar.
    Tar,
    /// The root file system as files.
    Local,
    /// Kept in the store under its name; pushed when the `push` attribute says so.
    Image,
    /// Only the build's cache.
    CacheOnly,
}

/// Where the bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A file or folder.
    Path(PathBuf),
    /// `-`
    Stdout,
}

/// One parsed `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// What it becomes.
    pub(crate) kind: OutputKind,
    /// Where it goes, for kinds that go somewhere.
    pub(crate) dest: Option<Destination>,
    /// The other attributes, as written.
    pub(crate) attrs: BTreeMap<String, String>,
}

/// A value that is no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutputError {
    /// The type is not one we write.
    #[error("output `{value}`: type `{kind}` is not known (oci, docker, tar, local, image, registry, cacheonly)")]
    UnknownType { value: String, kind: String },
    /// A field is not `name=value`.
    #[error("output `{value}`: `{field}` is not name=value")]
    NotAField { value: String, field: String },
    /// No type given.
    #[error("output `{value}`: `type=…` is missing")]
    NoType { value: String },
    /// A type that writes somewhere and no place.
    #[error("output `{value}`: `dest=…` is required for type {kind}")]
    NoDest { value: String, kind: &'static str },
    /// A boolean that is none.
    #[error("output attribute {name}={value} is not true or false")]
    NotABool { name: String, value: String },
    /// The quotes of the value do not pair up.
    #[error("output `{value}`: a quote is not closed")]
    OpenQuote { value: String },
}

impl Output {
    /// Reads a flag's value. A bare path means `type=local`, `-` a tar on standard output, as in docker.
    pub(crate) fn parse(value: &str) -> Result<Self, OutputError> {
        if value == "-" {
            return Ok(Self {
                kind: OutputKind::Tar,
                dest: Some(Destination::Stdout),
                attrs: BTreeMap::new(),
            });
        }
        let fields = csv_fields(value)?;
        if let [only] = fields.as_slice()
            && !only.contains('=')
        {
            let dest = Some(Destination::Path(PathBuf::from(only)));
            return Ok(Self {
                kind: OutputKind::Local,
                dest,
                attrs: BTreeMap::new(),
            });
        }
        let mut attrs = BTreeMap::new();
        for field in fields {
            let Some((name, text)) = field.split_once('=') else {
                return Err(OutputError::NotAField {
                    value: value.to_owned(),
                    field,
                });
            };
            attrs.insert(name.trim().to_ascii_lowercase(), text.to_owned());
        }
        Self::from_attrs(value, attrs)
    }

    /// Makes an output of named attributes, as bake gives them; `value` is only for messages.
    pub(crate) fn from_attrs(value: &str, mut attrs: BTreeMap<String, String>) -> Result<Self, OutputError> {
        let Some(kind) = attrs.remove("type") else {
            return Err(OutputError::NoType {
                value: value.to_owned(),
            });
        };
        let (kind, needs_dest) = match kind.as_str() {
            "oci" => (OutputKind::Oci, Some("oci")),
            "docker" => (OutputKind::Docker, None),
            "tar" => (OutputKind::Tar, Some("tar")),
            "local" => (OutputKind::Local, Some("local")),
            "image" => (OutputKind::Image, None),
            "registry" => {
                attrs.entry("push".to_owned()).or_insert_with(|| "true".to_owned());
                (OutputKind::Image, None)
            }
            "cacheonly" => (OutputKind::CacheOnly, None),
            _ => {
                return Err(OutputError::UnknownType {
                    value: value.to_owned(),
                    kind,
                });
            }
        };
        let dest = match attrs.remove("dest") {
            Some(dest) if dest == "-" => Some(Destination::Stdout),
            Some(dest) => Some(Destination::Path(PathBuf::from(dest))),
            None => None,
        };
        match needs_dest {
            Some(kind) if dest.is_none() => Err(OutputError::NoDest {
                value: value.to_owned(),
                kind,
            }),
            _ => Ok(Self { kind, dest, attrs }),
        }
    }

    /// A boolean attribute; Go's spellings.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, OutputError> {
        match self.attrs.get(name).map(String::as_str) {
            None => Ok(default),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(OutputError::NotABool {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
        }
    }
}

/// Splits one line of comma-separated values, `"…"` quoting as in RFC 4180.
pub(crate) fn csv_fields(value: &str) -> Result<Vec<String>, OutputError> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = value.chars().peekable();
    while let Some(next) = chars.next() {
        let last = fields.len() - 1;
        match next {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields[last].push('"');
            }
            '"' if quoted => quoted = false,
            '"' if fields[last].is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    if quoted {
        Err(OutputError::OpenQuote {
            value: value.to_owned(),
        })
    } else {
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_short_forms() {
        let parse = |text| Output::parse(text).expect(text);
        assert_eq!(parse("-").dest, Some(Destination::Stdout));
        assert_eq!(parse("out").kind, OutputKind::Local);
        let output = parse("type=oci,dest=a.tar,compression=zstd");
        assert_eq!(
            (output.kind, output.dest),
            (OutputKind::Oci, Some(Destination::Path("a.tar".into())))
        );
        assert_eq!(output.attrs["compression"], "zstd");
        assert_eq!(parse("type=registry").flag("push", false), Ok(true));
        assert_eq!(parse(r#"type=image,"name=a,b""#).attrs["name"], "a,b");
    }

    #[test]
    fn bad_outputs_say_what_is_wrong() {
        for (text, want) in [
            ("type=oci", "`dest=…` is required"),
            ("type=floppy,dest=a", "type `floppy` is not known"),
            ("dest=a,b=c", "`type=…` is missing"),
            ("type=oci,dest", "`dest` is not name=value"),
            ("\"type=oci", "a quote is not closed"),
        ] {
            let message = Output::parse(text).expect_err(text).to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }
}

//! `RUN --mount=type=…,key=value,…`.

use super::super::go::{csv_fields, meant, parse_bool, parse_size, quote};

/// One mount of a RUN, its variables expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: MountKind,
    /// A stage, a named context or an image.
    pub(crate) from: Option<String>,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) access: Access,
    /// The limit of a tmpfs in bytes; zero for none.
    pub(crate) size: i64,
    pub(crate) id: String,
    pub(crate) sharing: Option<Sharing>,
    pub(crate) required: bool,
    /// The variable that holds a secret.
    pub(crate) env: Option<String>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    #[default]
    ReadOnly,
    ReadWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Shared,
    Private,
    Locked,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const SHARINGS: [(&str, Sharing); 3] = [
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// What a mount comes from, which must be known before any variable is.
pub(super) fn source_of(text: &str) -> Result<Option<String>, String> {
    let mut from = None;
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else {
            continue;
        };
        if !key.eq_ignore_ascii_case("from") {
            continue;
        }
        if value.find('$').is_some_and(|at| at + 1 != value.len()) {
            return Err("'from' doesn't support variable expansion, define alias stage instead".to_owned());
        }
        from = Some(value.to_owned()).filter(|value| !value.is_empty());
    }
    Ok(from)
}

fn fields(text: &str) -> Result<Vec<String>, String> {
    csv_fields(text)
        .ok_or_else(|| "failed to parse csv mounts: an empty value, or a quote that is not closed".to_owned())
}

impl MountKind {
    fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("bind", |(name, _)| name)
    }
}

impl Mount {
    /// Reads a mount; values go through `expand` first.
    pub(crate) fn parse(text: &str, expand: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<Self, String> {
        let mut mount = Self::default();
        let mut access = None;
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(expand(value)?)),
                None => (field.to_lowercase(), None),
            };
            let switch = || match &value {
                None => Ok(true),
                Some(value) => parse_bool(value)
                    .ok_or_else(|| format!("invalid value for {key}: {value} (there are true and false)")),
            };
            match key.as_str() {
                "readonly" | "ro" => access = Some(if switch()? { Access::ReadOnly } else { Access::ReadWrite }),
                "readwrite" | "rw" => access = Some(if switch()? { Access::ReadWrite } else { Access::ReadOnly }),
                "required" if matches!(mount.kind, MountKind::Secret | MountKind::Ssh) => mount.required = switch()?,
                "required" => return Err(mount.unexpected(&key)),
                _ => match &value {
                    Some(value) => mount.set(&key, value, &field)?,
                    None => return Err(format!("invalid field '{field}' must be a key=value pair")),
                },
            }
        }
        mount.access = access.unwrap_or(match mount.kind {
            MountKind::Cache | MountKind::Tmpfs => Access::ReadWrite,
            MountKind::Bind | MountKind::Secret | MountKind::Ssh => Access::ReadOnly,
        });
        mount.check()?;
        Ok(mount)
    }

    fn unexpected(&self, key: &str) -> String {
        let kinds = match key {
            "required" => "secret and ssh mounts have it",
            _ => "tmpfs mounts have it",
        };
        format!("unexpected key '{key}' for mount type '{}' ({kinds})", self.kind.name())
    }

    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        let number = |radix, wanted: &str| {
            let number = u32::from_str_radix(value, radix);
            number.map_err(|_| format!("invalid value {value} for {key} ({wanted})"))
        };
        match key {
            "type" => self.kind = choose("mount type", value, &KINDS)?,
            "from" => self.from = Some(value.to_owned()).filter(|from| !from.is_empty()),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "size" if self.kind == MountKind::Tmpfs => {
                self.size = parse_size(value)
                    .ok_or_else(|| format!("invalid value for size: {value} (bytes, or such as 64m)"))?;
            }
            "size" => return Err(self.unexpected(key)),
            "id" => self.id = value.to_owned(),
            "sharing" => self.sharing = Some(choose("sharing value", value, &SHARINGS)?),
            "mode" => self.mode = Some(number(8, "octal digits, such as 0755")?),
            "uid" => self.uid = Some(number(10, "a number")?),
            "gid" => self.gid = Some(number(10, "a number")?),
            "env" => self.env = Some(value.to_owned()),
            _ => {
                return Err(format!("unexpected key '{key}' in '{field}'{}", meant(key, &KEYS)));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let kind = self.kind.name();
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if given.is_some() {
                    return Err(format!("{key} not allowed for {} type mounts", quote(kind)));
                }
            }
        }
        if self.kind == MountKind::Secret {
            let problem = match self {
                Self { from: Some(_), .. } => Some("secret mount should not have a from"),
                Self { sharing: Some(_), .. } => Some("secret mount should not define sharing"),
                _ if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() => {
                    Some("invalid secret mount. one of source, target required")
                }
                _ if !self.source.is_empty() && !self.id.is_empty() => Some("both source and id can't be set"),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(problem.to_owned());
            }
        }
        if self.sharing.is_some() && self.kind != MountKind::Cache {
            return Err(format!("invalid cache sharing set for {kind} mount"));
        }
        Ok(())
    }
}

fn choose<T: Copy>(what: &str, value: &str, options: &[(&str, T)]) -> Result<T, String> {
    let wanted = value.to_lowercase();
    if let Some((_, found)) = options.iter().find(|(name, _)| *name == wanted) {
        return Ok(*found);
    }
    let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
    Err(format!("unsupported {what} {}{}", quote(value), meant(value, &names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount, String> {
        Mount::parse(text, &mut |value| Ok(value.replace("$T", "/t")))
    }

    #[test]
    fn defaults_by_type() {
        let bind = parse("target=$T").expect("a bind mount");
        assert_eq!(
            (bind.kind, bind.access, bind.target.as_str()),
            (MountKind::Bind, Access::ReadOnly, "/t")
        );
        let cache = parse("type=cache,dst=/c,sharing=locked,uid=5,mode=700,ro").expect("a cache mount");
        assert_eq!((cache.access, cache.sharing), (Access::ReadOnly, Some(Sharing::Locked)));
        assert_eq!((cache.uid, cache.mode), (Some(5), Some(0o700)));
        let tmpfs = parse("type=tmpfs,target=/x,size=64m").expect("a tmpfs");
        assert_eq!((tmpfs.access, tmpfs.size), (Access::ReadWrite, 64 << 20));
        let secret = parse("type=secret,id=a,required,env=A").expect("a secret");
        assert_eq!((secret.required, secret.env.as_deref()), (true, Some("A")));
        assert_eq!(parse("rw=false").expect("a bind mount").access, Access::ReadOnly);
    }

    #[test]
    fn refusals_name_the_culprit() {
        let cases = [
            (
                "type=nfs",
                "unsupported mount type \"nfs\" (there are bind, cache, tmpfs, secret, ssh)",
            ),
            ("type=chache", "unsupported mount type \"chache\" (did you mean cache?)"),
            (
                "type=bind,size=3",
                "unexpected key 'size' for mount type 'bind' (tmpfs mounts have it)",
            ),
            (
                "required",
                "unexpected key 'required' for mount type 'bind' (secret and ssh mounts have it)",
            ),
            (
                "tagret=/x",
                "unexpected key 'tagret' in 'tagret=/x' (did you mean target?)",
            ),
            ("whatever", "invalid field 'whatever' must be a key=value pair"),
            ("mode=755", "mode not allowed for \"bind\" type mounts"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
            (
                "type=cache,mode=9",
                "invalid value 9 for mode (octal digits, such as 0755)",
            ),
            ("ro=perhaps", "invalid value for ro: perhaps (there are true and false)"),
            (
                "\"open",
                "failed to parse csv mounts: an empty value, or a quote that is not closed",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Err(want.to_owned()), "reading {text:?}");
        }
        assert_eq!(source_of("type=bind,from=base,x=$y"), Ok(Some("base".to_owned())));
        assert!(source_of("from=$base").is_err());
    }
}

//! The metadata file of builds: what docker/buildx writes, under its names.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use anyhow::Context as _;
use cbs_frontends::dockerfile::LintWarning;
use cbs_solver::llb::VertexDigest;
use serde_json::{Map, Value, json};

use crate::build::Built;
use crate::lower::{LoweredTarget, definition_task};
use crate::progress::base64;
use crate::target::{BuildTarget, DockerfileAt, Work};

/// The key of [`BuildRef`].
pub(crate) const BUILD_REF: &str = "buildx.build.ref";
/// The key of warnings.
const WARNINGS: &str = "buildx.build.warnings";
/// The builder and its node; there is one of each.
const BUILDER: &str = "default/default/";

/// The name of one build of one target, with which its record is found as long as that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BuildRef(String);

impl BuildRef {
    /// A name that no other build has: 25 letters and digits, as BuildKit's.
    pub(crate) fn new() -> anyhow::Result<Self> {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut bytes = [0; 16];
        let mut source = File::open("/dev/urandom").context("cannot open `/dev/urandom`")?;
        source.read_exact(&mut bytes).context("cannot read `/dev/urandom`")?;
        let mut number = u128::from_ne_bytes(bytes);
        let mut text = String::new();
        for _ in 0..25 {
            // Below 36.
            text.push(char::from(DIGITS[(number % 36) as usize]));
            number /= 36;
        }
        Ok(Self(text))
    }

    /// What a record keeps.
    pub(crate) fn id(&self) -> &str {
        &self.0
    }

    /// The id in what people give: with or without the builder.
    pub(crate) fn id_in(name: &str) -> Option<&str> {
        let id = name.rsplit_once('/').map_or(name, |(builder, id)| {
            if builder.len() + 1 == BUILDER.len() && name.starts_with(BUILDER) {
                id
            } else {
                ""
            }
        });
        let is_one = id.len() == 25
            && id
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        is_one.then_some(id)
    }
}

impl fmt::Display for BuildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BUILDER}{}", self.0)
    }
}

/// Something that lint found in a Dockerfile.
#[derive(Clone, Debug)]
pub(crate) struct BuildWarning {
    /// What messages call the file.
    file: String,
    /// Its bytes.
    data: Arc<[u8]>,
    /// The step that read it.
    vertex: VertexDigest,
    /// What was found.
    found: LintWarning,
}

impl fmt::Display for BuildWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, detail) = (self.found.rule.name(), &self.found.detail);
        write!(f, "{}:{}: {rule}: {detail}", self.file, self.found.lines.first)
    }
}

impl BuildWarning {
    /// As BuildKit's clients read it.
    pub(crate) fn to_json(&self) -> Value {
        let rule = self.found.rule;
        let mut json = json!({
            "vertex": self.vertex.to_string(),
            "level": 1,
            "short": base64(self.found.to_string().as_bytes()),
            "detail": [base64(rule.description().as_bytes())],
        });
        if !rule.url().is_empty() {
            json["url"] = rule.url().into();
        }
        json["sourceInfo"] = json!({
            "filename": self.file, "data": base64(&self.data), "language": "Dockerfile",
        });
        let lines = self.found.lines;
        json["range"] = json!([{ "start": { "line": lines.first }, "end": { "line": lines.last } }]);
        json
    }

    fn is_same(&self, other: &Self) -> bool {
        self.file == other.file && self.data == other.data && self.found == other.found
    }
}

/// What lint found in all targets; what several share is there once.
pub(crate) fn warnings<'t>(
    targets: &'t [BuildTarget],
    lowered: impl Fn(&'t BuildTarget) -> Option<Arc<LoweredTarget>>,
) -> Vec<BuildWarning> {
    let mut all: Vec<BuildWarning> = Vec::new();
    for target in targets {
        let Work::Dockerfile {
            file: DockerfileAt::Here(text),
            ..
        } = &target.work
        else {
            continue;
        };
        let Some(lowered) = lowered(target) else { continue };
        let data: Arc<[u8]> = Arc::from(text.data.as_slice());
        for found in &lowered.warnings {
            let warning = BuildWarning {
                file: text.name.clone(),
                data: data.clone(),
                vertex: VertexDigest::of(definition_task(target, targets.len(), &text.name).as_bytes()),
                found: found.clone(),
            };
            if !all.iter().any(|other| other.is_same(&warning)) {
                all.push(warning);
            }
        }
    }
    all
}

/// Whether the metadata file is to have the warnings; `value` is that of `BUILDX_METADATA_WARNINGS`.
pub(crate) fn wants_warnings(value: Option<&str>) -> bool {
    matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// What is written of one target, or of each under its name.
pub(crate) fn document(built: &[Built], only: bool, warnings: &[BuildWarning]) -> Value {
    let mut document = match built {
        [one] if only => one.metadata.clone(),
        _ => built
            .iter()
            .map(|built| (built.name.clone(), Value::from(built.metadata.clone())))
            .collect::<Map<_, _>>(),
    };
    if !warnings.is_empty() {
        document.insert(
            WARNINGS.to_owned(),
            warnings.iter().map(BuildWarning::to_json).collect(),
        );
    }
    document.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_told_from_names() {
        let one = BuildRef::new().expect("random");
        assert_ne!(one, BuildRef::new().expect("random"));
        assert_eq!(BuildRef::id_in(one.id()), Some(one.id()));
        assert_eq!(BuildRef::id_in(&one.to_string()), Some(one.id()));
        for name in [
            "app",
            "default/default/app",
            "other/default/0123456789abcdefghijklmno",
            "",
        ] {
            assert_eq!(BuildRef::id_in(name), None, "{name}");
        }
    }

    #[test]
    fn warnings_are_asked_for_as_go_writes_booleans() {
        assert!(wants_warnings(Some("1")) && wants_warnings(Some("true")));
        assert!(!wants_warnings(None) && !wants_warnings(Some("yes")) && !wants_warnings(Some("")));
    }
}

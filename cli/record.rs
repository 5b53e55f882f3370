//! What a gc root says about its snapshots: everything an export needs, and where the logs are.
//!
//! A root is named by the absolute path of what was built: `/src/docker-bake.hcl#app`, or the folder of a Dockerfile.

use std::path::Path;

use anyhow::{Context as _, bail};
use cbs_frontends::bake::{Annotation, AnnotationKind};
use cbs_image::config::ImageConfig;
use cbs_image::platform::Platform;
use cbs_image::reference::Reference;
use cbs_store::{GcRoot, Store};
use serde::{Deserialize, Serialize};

use crate::epoch::Epoch;
use crate::inputs::BuildInputs;
use crate::metadata::BuildRef;
use crate::roots::{RootKind, tag_root};
use crate::steps::StepRecord;

/// Bumped when old programs would misread new records.
const VERSION: u32 = 1;

/// The payload of a gc root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// One for each snapshot of the root.
    pub(crate) platforms: Vec<PlatformRecord>,
    /// Whether the image is an index even of one platform.
    pub(crate) index: bool,
    /// The names of the image.
    pub(crate) names: Vec<String>,
    /// What manifests say beside.
    pub(crate) annotations: Vec<AnnotationRecord>,
    /// The time that exports show.
    pub(crate) epoch: Epoch,
    /// What was done, inputs before their users.
    pub(crate) steps: Vec<StepRecord>,
    /// The id of the build, by which metadata files call it. Older records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build: Option<String>,
    /// What it was built from, for `cbs shell`; records of before that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<BuildInputs>,
}

/// One platform of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlatformRecord {
    /// What it runs on.
    pub(crate) platform: Platform,
    /// Its config before export.
    pub(crate) config: ImageConfig,
    /// The config of the image it is built on.
    pub(crate) base: Option<ImageConfig>,
}

/// One annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnnotationRecord {
    /// `manifest`, `manifest-descriptor`, `index` or `index-descriptor`.
    pub(crate) kind: String,
    /// The platform it is for; all without.
    pub(crate) platform: Option<Platform>,
    /// Its name.
    pub(crate) key: String,
    /// What it says.
    pub(crate) value: String,
}

impl AnnotationRecord {
    /// What a planned build says.
    pub(crate) fn of(annotation: &Annotation) -> Self {
        let kind = match annotation.kind {
            None | Some(AnnotationKind::Manifest) => "manifest",
            Some(AnnotationKind::ManifestDescriptor) => "manifest-descriptor",
            Some(AnnotationKind::Index) => "index",
            Some(AnnotationKind::IndexDescriptor) => "index-descriptor",
        };
        Self {
            kind: kind.to_owned(),
            platform: annotation.platform.clone(),
            key: annotation.key.clone(),
            value: annotation.value.clone(),
        }
    }
}

impl Record {
    /// A record of the current version.
    pub(crate) fn new(platforms: Vec<PlatformRecord>, epoch: Epoch) -> Self {
        Self {
            version: VERSION,
            platforms,
            index: false,
            names: Vec::new(),
            annotations: Vec::new(),
            epoch,
            steps: Vec::new(),
            build: None,
            inputs: None,
        }
    }

    /// The bytes a root keeps.
    pub(crate) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads what [`Record::encode`] wrote.
    pub(crate) fn of_root(root: &GcRoot) -> anyhow::Result<Self> {
        let what = || format!("root `{}`", root.name);
        let value: serde_json::Value = serde_json::from_slice(&root.payload).with_context(what)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            _ => bail!("{} was written by another version of cbs; build it again", what()),
        }
        let record: Self = serde_json::from_value(value).with_context(what)?;
        if record.platforms.len() != root.snapshots.len() {
            bail!("{} is damaged; build it again", what());
        }
        Ok(record)
    }
}

/// Finds what was realised: by the reference of its build, its name, the absolute form of it, a unique end of it, or one of its tags.
pub(crate) fn find(store: &Store, name: &str) -> anyhow::Result<(GcRoot, Record)> {
    let root = find_root(store, name)?;
    let record = Record::of_root(&root)?;
    Ok((root, record))
}

/// [`find`], whatever the root says about itself.
pub(crate) fn find_root(store: &Store, name: &str) -> anyhow::Result<GcRoot> {
    let roots = store.gc_roots()?;
    let absolute = absolute(name);
    let pinned = crate::roots::pin_root(name);
    let exact = roots
        .iter()
        .find(|root| root.name == name)
        .or_else(|| roots.iter().find(|root| Some(&root.name) == absolute.as_ref()))
        .or_else(|| roots.iter().find(|root| root.name == pinned));
    if let Some(root) = exact {
        return Ok(root.clone());
    }
    if let Some(id) = BuildRef::id_in(name) {
        let is_it = |root: &&GcRoot| Record::of_root(root).is_ok_and(|record| record.build.as_deref() == Some(id));
        if let Some(root) = roots.iter().find(is_it) {
            return Ok(root.clone());
        }
    }
    let mut by_end = roots.iter().filter(|root| {
        matches!(RootKind::of(&root.name), RootKind::Result | RootKind::Earlier)
            && (is_in_folder(&root.name, absolute.as_deref())
                || root
                    .name
                    .strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with(['/', '#'])))
    });
    match (by_end.next(), by_end.next()) {
        (Some(root), None) => return Ok(root.clone()),
        (Some(one), Some(other)) => bail!("`{name}` could be `{}` or `{}`", one.name, other.name),
        (None, _) => {}
    }
    if let Ok(reference) = name.parse::<Reference>() {
        let wanted = tag_root(&reference);
        if let Some(root) = roots.iter().find(|root| root.name == wanted) {
            return Ok(root.clone());
        }
        let wanted = reference.with_default_tag().to_string();
        // Before tags had roots of their own, the last one to take a tag had it.
        let mut newest: Option<&GcRoot> = None;
        for root in &roots {
            let Ok(record) = Record::of_root(root) else { continue };
            if record.names.contains(&wanted) && newest.is_none_or(|other| other.created < root.created) {
                newest = Some(root);
            }
        }
        if let Some(found) = newest {
            return Ok(found.clone());
        }
    }
    let is_result = |root: &&GcRoot| RootKind::of(&root.name) == RootKind::Result;
    let names: Vec<&str> = roots.iter().filter(is_result).map(|root| root.name.as_str()).collect();
    match names.len() {
        0 => bail!("`{name}` was never realised here; nothing was yet"),
        1..=12 => bail!("`{name}` was never realised here; there are {}", names.join(", ")),
        _ => bail!("`{name}` was never realised here; `cbs roots` lists what was"),
    }
}

/// `REF` or `REF#STEP`: what was realised, and which of its steps is meant.
pub(crate) fn find_step(store: &Store, name: &str) -> anyhow::Result<(GcRoot, Record, Option<String>)> {
    match (find(store, name), name.rsplit_once('#')) {
        (Ok((root, record)), _) => Ok((root, record, None)),
        (Err(err), None) => Err(err),
        (Err(err), Some((name, step))) => match find(store, name) {
            Ok((root, record)) => Ok((root, record, Some(step.to_owned()))),
            Err(_) => Err(err),
        },
    }
}

/// The last build.
pub(crate) fn newest(store: &Store) -> anyhow::Result<(GcRoot, Record)> {
    let is_last = |root: &GcRoot| RootKind::of(&root.name) == RootKind::Result;
    let roots = store.gc_roots()?.into_iter().filter(is_last);
    let newest = roots.max_by_key(|root| root.created);
    let newest = newest.context("nothing was built here yet")?;
    let record = Record::of_root(&newest)?;
    Ok((newest, record))
}

/// `FILE#TARGET` with an absolute path.
pub(crate) fn absolute(name: &str) -> Option<String> {
    let (path, target) = match name.split_once('#') {
        Some((path, target)) => (path, Some(target)),
        None => (name, None),
    };
    let path = match Path::new(path).canonicalize() {
        Ok(path) => path,
        // What was built may be gone; its name is not.
        Err(_) => std::path::absolute(path).ok()?,
    };
    let path = path.to_str()?;
    Some(match target {
        Some(target) => format!("{path}#{target}"),
        None => path.to_owned(),
    })
}

/// Whether `FOLDER#TARGET` means this root: `FOLDER/some-file#TARGET`.
fn is_in_folder(root: &str, wanted: Option<&str>) -> bool {
    let parts = |name: &str| {
        let (path, target) = name.split_once('#')?;
        Some((path.to_owned(), target.to_owned()))
    };
    match (parts(root), wanted.and_then(parts)) {
        (Some((path, target)), Some((folder, wanted))) => {
            target == wanted && Path::new(&path).parent() == Some(Path::new(&folder))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use cbs_store::{Access, Snapshot, TreeDigest};

    use super::*;
    use crate::epoch::EpochOrigin;

    fn record(names: &[&str]) -> Record {
        let platform = PlatformRecord {
            platform: Platform::new("linux", "amd64", ""),
            config: ImageConfig::default(),
            base: None,
        };
        let epoch = Epoch {
            seconds: 1,
            origin: EpochOrigin::Default,
        };
        let mut record = Record::new(vec![platform], epoch);
        record.names = names.iter().map(|name| (*name).to_owned()).collect();
        record
    }

    #[test]
    fn roots_are_found_by_name_end_and_tag() {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = Store::open(&folder.path().join("store"), Access::ReadWrite).expect("store");
        let put = |name: &str, tags: &[&str]| {
            let root = GcRoot {
                name: name.to_owned(),
                snapshots: vec![Snapshot {
                    tree: TreeDigest::from_bytes([1; 32]),
                    layers: Vec::new(),
                }],
                payload: record(tags).encode().expect("encode"),
                created: 5,
            };
            store.set_root(&root).expect("root");
        };
        put("/src/docker-bake.hcl#app", &["docker.io/example/app:1"]);
        put("/other/docker-bake.hcl#app", &[]);
        put("/other/docker-bake.hcl#web", &[]);
        let found = |name: &str| find(&store, name).map(|(root, _)| root.name);
        for name in [
            "/src/docker-bake.hcl#app",
            "src/docker-bake.hcl#app",
            "example/app:1",
            "/src#app",
        ] {
            assert_eq!(found(name).expect(name), "/src/docker-bake.hcl#app", "{name}");
        }
        assert_eq!(found("web").expect("web"), "/other/docker-bake.hcl#web");
        assert!(found("app").unwrap_err().to_string().contains("could be"));
        assert!(found("nothing").unwrap_err().to_string().contains("never realised"));
    }
}

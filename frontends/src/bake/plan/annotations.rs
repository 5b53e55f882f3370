//! Annotations: what they say, and which document they belong to.

use cbs_image::platform::Platform;

use super::super::entries::keep_last_by;

/// Something said about the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The document it goes into; manifests by default.
    pub kind: Option<AnnotationKind>,
    /// The platform whose manifest is meant; all by default.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// What it says.
    pub value: String,
}

/// The document that an annotation goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationKind {
    /// The index of all platforms.
    Index,
    /// Where the index is listed.
    IndexDescriptor,
    /// The manifest of one platform.
    Manifest,
    /// Where the manifest is listed.
    ManifestDescriptor,
}

/// Reads texts of the form `type[platform],type:key=value`; types can be left out.
pub(super) fn parse_all(texts: &[String]) -> Result<Vec<Annotation>, String> {
    let mut annotations = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let (left, value) = text
            .split_once('=')
            .ok_or_else(|| format!("annotation {text:?} must have the form key=value"))?;
        let annotation = |kind, platform, key: &str| Annotation {
            kind,
            platform,
            key: String::from(key),
            value: String::from(value),
        };
        let Some((types, key)) = left.split_once(':') else {
            annotations.push(annotation(None, None, left));
            continue;
        };
        for kind in types.split(',') {
            let (name, platform) = match kind.strip_suffix(']').and_then(|kind| kind.split_once('[')) {
                Some((name, platform)) => {
                    let parsed: Result<Platform, _> = platform.parse();
                    (
                        name,
                        Some(parsed.map_err(|error| format!("{platform:?} in annotation {text:?}: {error}"))?),
                    )
                }
                None => (kind, None),
            };
            let kind = match name {
                "index" => AnnotationKind::Index,
                "index-descriptor" => AnnotationKind::IndexDescriptor,
                "manifest" => AnnotationKind::Manifest,
                "manifest-descriptor" => AnnotationKind::ManifestDescriptor,
                _ => {
                    return Err(format!(
                        "unknown type {name:?} of annotation {text:?}; there are index, index-descriptor, manifest and \
                         manifest-descriptor"
                    ));
                }
            };
            annotations.push(annotation(Some(kind), platform, key));
        }
    }
    keep_last_by(&mut annotations, |annotation| {
        format!("{:?} {:?} {}", annotation.kind, annotation.platform, annotation.key)
    });
    Ok(annotations)
}

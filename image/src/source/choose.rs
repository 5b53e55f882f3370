//! Which entry of an index suits a platform.

use crate::error::ImageError;
use crate::manifest::{Descriptor, Index};
use crate::platform::Platform;

/// The annotation of entries that are about another entry, such as attestations.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The best entry for a platform. Entries without a platform count only when there is nothing else to choose.
pub(super) fn platform<'a>(name: &str, index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, ImageError> {
    let images: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| !entry.annotations.contains_key(REFERENCE_TYPE))
        .filter(|entry| entry.is_manifest() || entry.is_index() || entry.media_type.is_empty())
        .collect();
    if let [only] = images.as_slice()
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let best = wanted.best_of(images.iter().map(|entry| entry.platform.as_ref()));
    match best {
        Some(position) => Ok(images[position]),
        None => Err(ImageError::NoPlatform {
            image: name.to_owned(),
            platform: wanted.to_string(),
            available: images
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .map(|platform| platform.normalized().to_string())
                .collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Annotations, MediaTypes, media};

    fn entry(platform: Option<&str>) -> Descriptor {
        Descriptor {
            platform: platform.map(|text| text.parse().expect("platform")),
            ..Descriptor::of(media::OCI_MANIFEST, platform.unwrap_or_default().as_bytes())
        }
    }

    #[test]
    fn entries() {
        let attestation = Descriptor {
            annotations: [(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned())].into(),
            ..entry(None)
        };
        let index = |entries: Vec<Descriptor>| Index::new(MediaTypes::Oci, entries, Annotations::new());
        let amd64: Platform = "linux/amd64".parse().expect("platform");
        let both = index(vec![
            entry(Some("linux/arm64")),
            entry(Some("linux/amd64")),
            attestation.clone(),
        ]);
        assert_eq!(platform("x", &both, &amd64).expect("found"), &both.manifests[1]);
        let bare = index(vec![entry(None), attestation]);
        assert_eq!(platform("x", &bare, &amd64).expect("found"), &bare.manifests[0]);
        let arm = index(vec![entry(Some("linux/arm/v7")), entry(None)]);
        let err = platform("x", &arm, &amd64).expect_err("not there");
        assert_eq!(err.to_string(), "`x` has no image for linux/amd64; it has linux/arm/v7");
    }
}

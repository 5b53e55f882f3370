//! Manifests, indexes and descriptors, written as Go's encoder writes BuildKit's: field order, omissions, escapes and
//! two-space indent, so that equal images have equal digests there and here.

use std::collections::BTreeMap;
use std::io;

use cbs_store::{OciBlob, Sha256Digest};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::codec::Compression;
use crate::config::GoFormatter;
use crate::error::ImageError;
use crate::platform::Platform;

/// Media types of OCI and Docker.
pub mod media {
    #![allow(missing_docs)]
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_MANIFEST_V1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
}

/// Largest manifest, index or config read: what registries accept, with room.
pub const METADATA_MAX: u64 = 8 << 20;

/// Which family of media types an image is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.…`.
    Oci,
    /// `application/vnd.docker.…`, schema 2.
    Docker,
}

impl MediaTypes {
    /// The type of a manifest.
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => media::OCI_MANIFEST,
            Self::Docker => media::DOCKER_MANIFEST,
        }
    }

    /// The type of an index.
    pub const fn index(self) -> &'static str {
        match self {
            Self::Oci => media::OCI_INDEX,
            Self::Docker => media::DOCKER_INDEX,
        }
    }

    /// The type of a config.
    pub const fn config(self) -> &'static str {
        match self {
            Self::Oci => media::OCI_CONFIG,
            Self::Docker => media::DOCKER_CONFIG,
        }
    }

    /// The type of a layer.
    pub const fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => media::OCI_LAYER,
            (Self::Oci, Compression::Gzip) => media::OCI_LAYER_GZIP,
            (Self::Oci, Compression::Zstd) => media::OCI_LAYER_ZSTD,
            (Self::Docker, Compression::None) => media::DOCKER_LAYER,
            (Self::Docker, Compression::Gzip) => media::DOCKER_LAYER_GZIP,
            (Self::Docker, Compression::Zstd) => media::DOCKER_LAYER_ZSTD,
        }
    }

    /// A layer's type in this family; types that are no tar layer stay as they are.
    pub fn convert_layer(self, media_type: &str) -> &str {
        match layer_compression(media_type) {
            Some(compression) => self.layer(compression),
            None => media_type,
        }
    }
}

/// How a layer of this type is compressed; `None` for what is no tar layer.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    match media_type {
        media::OCI_LAYER
        | media::DOCKER_LAYER
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Some(Compression::None),
        media::OCI_LAYER_GZIP
        | media::DOCKER_LAYER_GZIP
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Compression::Gzip),
        media::OCI_LAYER_ZSTD
        | media::DOCKER_LAYER_ZSTD
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// Annotations in the order of their keys.
pub type Annotations = BTreeMap<String, String>;

/// Names content by digest, size and type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// `sha256:<hex>`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Where else it can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text by key.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: Annotations,
    /// The content itself, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// For artifacts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
}

impl Descriptor {
    /// Describes bytes in memory.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Sha256Digest::of(bytes).oci(),
            size: bytes.len() as u64,
            ..Self::default()
        }
    }

    /// Describes a stored blob.
    pub fn of_blob(blob: &OciBlob) -> Self {
        Self {
            media_type: blob.media_type.clone(),
            digest: blob.digest.oci(),
            size: blob.size,
            ..Self::default()
        }
    }

    /// The digest as a type.
    ///
    /// # Errors
    /// [`ImageError::BadDigest`] when it is no sha256.
    pub fn sha256(&self) -> Result<Sha256Digest, ImageError> {
        Sha256Digest::parse_oci(&self.digest).map_err(|_| ImageError::BadDigest(self.digest.clone()))
    }

    /// Whether it names an index.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), media::OCI_INDEX | media::DOCKER_INDEX)
    }

    /// Whether it names a manifest.
    pub fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), media::OCI_MANIFEST | media::DOCKER_MANIFEST)
    }
}

/// One image: a config and its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What this is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// For artifacts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// The image config.
    pub config: Descriptor,
    /// Lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// What an attestation is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// Free text by key.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: Annotations,
}

/// Several images, one per platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What this is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// For artifacts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// The images.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// What a set of referrers is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// Free text by key.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: Annotations,
}

impl Manifest {
    /// A manifest of this type.
    pub fn new(types: MediaTypes, config: Descriptor, layers: Vec<Descriptor>, annotations: Annotations) -> Self {
        Self {
            schema_version: 2,
            media_type: types.manifest().to_owned(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations,
        }
    }
}

impl Index {
    /// An index of this type.
    pub fn new(types: MediaTypes, manifests: Vec<Descriptor>, annotations: Annotations) -> Self {
        Self {
            schema_version: 2,
            media_type: types.index().to_owned(),
            artifact_type: String::new(),
            manifests,
            subject: None,
            annotations,
        }
    }
}

/// What a reference leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "few at a time")]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// One image per platform.
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index; the body decides, for registries send wrong types.
    ///
    /// # Errors
    /// [`ImageError::BadDocument`] when it is neither; schema 1 is named.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            schema_version: Option<u32>,
            #[serde(default)]
            media_type: String,
            manifests: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
        }
        let bad = |source| ImageError::BadDocument {
            what: "manifest",
            source,
        };
        let probe: Probe = serde_json::from_slice(bytes).map_err(bad)?;
        if probe.schema_version == Some(1) || probe.media_type == media::DOCKER_MANIFEST_V1 {
            return Err(ImageError::SchemaOne);
        }
        let says_index = matches!(probe.media_type.as_str(), media::OCI_INDEX | media::DOCKER_INDEX);
        let says_manifest = matches!(probe.media_type.as_str(), media::OCI_MANIFEST | media::DOCKER_MANIFEST);
        // A document that is both could be read as two different images (CVE-2021-41190).
        if probe.manifests.is_some() && probe.config.is_some()
            || says_index && probe.config.is_some()
            || says_manifest && probe.manifests.is_some()
        {
            return Err(ImageError::AmbiguousDocument);
        }
        if says_index || probe.manifests.is_some() {
            serde_json::from_slice(bytes).map(Self::Index).map_err(bad)
        } else {
            serde_json::from_slice(bytes)
                .map(|manifest| Self::Manifest(Box::new(manifest)))
                .map_err(bad)
        }
    }
}

/// Writes compact JSON with Go's escapes.
///
/// # Errors
/// [`ImageError::BadDocument`] when the value has a map with keys that are no strings.
pub fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    write_json(value, GoFormatter)
}

/// Writes JSON with Go's escapes, indented by two spaces: the form of manifests and indexes.
///
/// # Errors
/// As [`to_json`].
pub fn to_pretty_json(value: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    write_json(value, GoPretty(PrettyFormatter::new()))
}

fn write_json(value: &impl Serialize, formatter: impl Formatter) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|source| ImageError::BadDocument { what: "JSON", source })?;
    Ok(bytes)
}

/// The indent of one formatter with the strings of the other.
struct GoPretty(PrettyFormatter<'static>);

impl Formatter for GoPretty {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        GoFormatter.write_string_fragment(writer, fragment)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_have_go_layout() {
        let config = Descriptor::of(media::OCI_CONFIG, b"{}");
        let layer = Descriptor {
            annotations: [("b".into(), "<2>".into()), ("a".into(), "1".into())].into(),
            platform: Some(Platform::new("linux", "arm", "v7")),
            ..Descriptor::of(media::OCI_LAYER_GZIP, b"x")
        };
        let manifest = Manifest::new(MediaTypes::Oci, config, vec![layer], Annotations::new());
        let text = String::from_utf8(to_pretty_json(&manifest).expect("json")).expect("utf-8");
        let want = r#"{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "size": 2
  },
  "layers": [
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
      "size": 1,
      "annotations": {
        "a": "1",
        "b": "\u003c2\u003e"
      },
      "platform": {
        "architecture": "arm",
        "os": "linux",
        "variant": "v7"
      }
    }
  ]
}"#;
        assert_eq!(text, want);
        assert_eq!(
            Document::parse(text.as_bytes()).expect("parse"),
            Document::Manifest(Box::new(manifest))
        );
    }

    #[test]
    fn odd_documents() {
        assert!(matches!(
            Document::parse(br#"{"schemaVersion":1}"#),
            Err(ImageError::SchemaOne)
        ));
        let both = br#"{"schemaVersion":2,"manifests":[],"config":{"digest":"x","size":1}}"#;
        assert!(matches!(Document::parse(both), Err(ImageError::AmbiguousDocument)));
        let index = br#"{"schemaVersion":2,"manifests":null,"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        assert!(matches!(Document::parse(index), Ok(Document::Index(_))));
        assert!(Document::parse(b"<html>").is_err());
        assert!(Document::parse(b"{}").is_err());
    }

    #[test]
    fn layer_types_convert() {
        for types in [MediaTypes::Oci, MediaTypes::Docker] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let media_type = types.layer(compression);
                assert_eq!(layer_compression(media_type), Some(compression));
                assert_eq!(types.convert_layer(MediaTypes::Docker.layer(compression)), media_type);
                assert_eq!(types.convert_layer(MediaTypes::Oci.layer(compression)), media_type);
            }
            assert_eq!(types.convert_layer("application/x"), "application/x");
        }
    }
}

//! What the store remembers about trees, and how it is encoded.

use std::time::Duration;

use super::codec::{Decoder, Encoder, RecordError};
use crate::{BlobDigest, Sha256Digest, TreeDigest};

/// Version byte of an encoded [`Realisation`].
const REALISATION: u8 = 1;
/// Version byte of the snapshots in a [`GcRoot`].
const ROOT: u8 = 1;

/// One change set of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// The changes as a tree with whiteouts.
    pub diff: TreeDigest,
    /// SHA-256 of the uncompressed tar when the layer came from outside and must leave as those very bytes.
    pub diff_id: Option<Sha256Digest>,
}

/// What a step can mount, and how OCI would ship it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The root directory.
    pub tree: TreeDigest,
    /// Lowest first; applied in order they give the tree.
    pub layers: Vec<Layer>,
}

/// A remembered run: what a cache key gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Realisation {
    /// One per output of the operation; `None` for an output nothing keeps.
    pub outputs: Vec<Option<Snapshot>>,
    /// What it was, for people.
    pub name: String,
    /// How long it ran.
    pub duration: Duration,
    /// Highest memory use in bytes, zero when unknown.
    pub peak_memory: u64,
    /// Its log, compressed, as a blob.
    pub log: Option<BlobDigest>,
    /// The parts its key was made of, encoded by the solver, for explanations.
    pub key_parts: Vec<u8>,
    /// When it ran, seconds since 1970.
    pub created: i64,
}

/// A compressed layer, manifest or config as OCI names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciBlob {
    /// SHA-256 of the (compressed) bytes.
    pub digest: Sha256Digest,
    /// Their number.
    pub size: u64,
    /// The media type it travels under.
    pub media_type: String,
    /// For layers: SHA-256 of the uncompressed tar.
    pub diff_id: Option<Sha256Digest>,
}

/// A name that keeps things alive and what an exporter needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcRoot {
    /// Unique name such as `bake.hcl#app-release`.
    pub name: String,
    /// What it keeps alive.
    pub snapshots: Vec<Snapshot>,
    /// Bytes of the caller's own format (versioned by the caller).
    pub payload: Vec<u8>,
    /// Seconds since 1970.
    pub created: i64,
}

fn put_snapshot(out: &mut Encoder, snapshot: &Snapshot) {
    out.raw(snapshot.tree.as_bytes());
    out.list(&snapshot.layers, |out, layer| {
        out.raw(layer.diff.as_bytes());
        out.option(layer.diff_id.as_ref(), |out, id| out.raw(id.as_bytes()));
    });
}

fn snapshot(input: &mut Decoder<'_>) -> Result<Snapshot, RecordError> {
    let tree = TreeDigest::from_bytes(input.raw()?);
    let layers = input.list(|input| {
        Ok(Layer {
            diff: TreeDigest::from_bytes(input.raw()?),
            diff_id: input.option(|input| input.raw().map(Sha256Digest::from_bytes))?,
        })
    })?;
    Ok(Snapshot { tree, layers })
}

pub(super) fn encode_realisation(realisation: &Realisation) -> Vec<u8> {
    let mut out = Encoder::new(REALISATION);
    out.list(&realisation.outputs, |out, output| {
        out.option(output.as_ref(), put_snapshot)
    });
    out.bytes(realisation.name.as_bytes());
    out.number(realisation.duration.as_secs());
    out.number(u64::from(realisation.duration.subsec_nanos()));
    out.number(realisation.peak_memory);
    out.option(realisation.log.as_ref(), |out, log| out.raw(log.as_bytes()));
    out.bytes(&realisation.key_parts);
    out.number(realisation.created.cast_unsigned());
    out.0
}

pub(super) fn decode_realisation(bytes: &[u8]) -> Result<Realisation, RecordError> {
    let mut input = Decoder::new(bytes, REALISATION)?;
    let outputs = input.list(|input| input.option(snapshot))?;
    let name = input.text()?;
    let seconds = input.number()?;
    let nanos = u32::try_from(input.number()?)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    let nanos = nanos.ok_or(RecordError("duration out of range"))?;
    let realisation = Realisation {
        outputs,
        name,
        duration: Duration::new(seconds, nanos),
        peak_memory: input.number()?,
        log: input.option(|input| input.raw().map(BlobDigest::from_bytes))?,
        key_parts: input.bytes()?.to_vec(),
        created: input.number()?.cast_signed(),
    };
    input.end()?;
    Ok(realisation)
}

/// The parts of a root that are not columns.
pub(super) fn encode_root(root: &GcRoot) -> Vec<u8> {
    let mut out = Encoder::new(ROOT);
    out.list(&root.snapshots, put_snapshot);
    out.bytes(&root.payload);
    out.0
}

pub(super) fn decode_root(name: String, created: i64, bytes: &[u8]) -> Result<GcRoot, RecordError> {
    let mut input = Decoder::new(bytes, ROOT)?;
    let root = GcRoot {
        name,
        snapshots: input.list(snapshot)?,
        payload: input.bytes()?.to_vec(),
        created,
    };
    input.end()?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Realisation {
        Realisation {
            outputs: vec![
                None,
                Some(Snapshot {
                    tree: TreeDigest::from_bytes([1; 32]),
                    layers: vec![
                        Layer {
                            diff: TreeDigest::from_bytes([2; 32]),
                            diff_id: Some(Sha256Digest::from_bytes([3; 32])),
                        },
                        Layer {
                            diff: TreeDigest::from_bytes([4; 32]),
                            diff_id: None,
                        },
                    ],
                }),
            ],
            name: "RUN make".to_owned(),
            duration: Duration::from_millis(1_234),
            peak_memory: 99,
            log: Some(BlobDigest::from_bytes([5; 32])),
            key_parts: vec![6, 7],
            created: -8,
        }
    }

    #[test]
    fn records_survive_and_damage_is_refused() {
        let bytes = encode_realisation(&example());
        assert_eq!(decode_realisation(&bytes), Ok(example()));
        for length in 0..bytes.len() {
            assert!(decode_realisation(&bytes[..length]).is_err(), "cut at {length}");
        }
        let root = GcRoot {
            name: "a#b".to_owned(),
            snapshots: example().outputs.into_iter().flatten().collect(),
            payload: b"payload".to_vec(),
            created: 7,
        };
        let bytes = encode_root(&root);
        assert_eq!(decode_root("a#b".to_owned(), 7, &bytes), Ok(root));
        assert!(decode_root(String::new(), 0, &[1, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }

    /// A disk format: when this fails, `REALISATION` must change and the old version be read on.
    #[test]
    fn record_bytes_are_pinned() {
        let digest = BlobDigest::of(&encode_realisation(&example()));
        assert_eq!(
            digest.to_string(),
            "fc297b221d6c75b0583ec01041beb653f005e4132346456439301048b5e31d5c"
        );
    }
}

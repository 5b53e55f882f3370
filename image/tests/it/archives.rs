//! OCI and Docker archives and layouts, read back by others and by ourselves.

use std::path::Path;

use cbs_image::ImageError;
use cbs_image::codec::Compression;
use cbs_image::export::{ArchiveKind, Destination, IndexUse, assemble, write_archive, write_layout};
use cbs_image::manifest::MediaTypes;
use cbs_store::Sha256Digest;

use super::support::*;

fn archive(world: &World, plan: &cbs_image::export::ImageToExport, kind: ArchiveKind, path: &Path) {
    let assembled = assemble(&world.context(), plan).expect("assemble");
    write_archive(&world.store, &assembled, kind, Destination::File(path)).expect("archive");
}

#[test]
fn bytes_depend_on_the_image_only() {
    let mut digests = Vec::new();
    for threads in [1, 3] {
        let world = World::with_threads(threads);
        let snapshot = world.sample();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let mut plan = image(snapshot.clone(), "linux/amd64", &["app:1"]);
            plan.layers.compression = compression;
            let path = world.path("image.tar");
            // Twice: compressing and remembering must give the same.
            for _ in 0..2 {
                archive(&world, &plan, ArchiveKind::Oci, &path);
                digests.push((compression, Sha256Digest::of(&std::fs::read(&path).expect("archive"))));
            }
        }
        assert_eq!(
            std::fs::read_dir(world.dir.path()).expect("folder").count(),
            2,
            "no temporary file stays"
        );
    }
    for (compression, digest) in &digests {
        let first = digests.iter().find(|(other, _)| other == compression).expect("itself");
        assert_eq!(*digest, first.1, "{compression}");
    }
}

#[test]
fn skopeo_reads_both_archives() {
    let world = World::new();
    let oci = world.path("oci.tar");
    let docker = world.path("docker.tar");
    for (compression, types) in [
        (Compression::Gzip, MediaTypes::Oci),
        (Compression::Gzip, MediaTypes::Docker),
        (Compression::Zstd, MediaTypes::Oci),
        (Compression::None, MediaTypes::Oci),
    ] {
        let mut plan = image(world.sample(), "linux/amd64", &["example.org/team/app:1.0"]);
        plan.layers.compression = compression;
        plan.media_types = types;
        archive(&world, &plan, ArchiveKind::Oci, &oci);
        archive(&world, &plan, ArchiveKind::Docker, &docker);
        let (oci, docker) = (oci.display(), docker.display());
        // skopeo finds OCI manifests only in an OCI archive.
        if types == MediaTypes::Oci {
            let Some(shown) = must("skopeo", &["inspect", &format!("oci-archive:{oci}:1.0")]) else {
                return;
            };
            assert!(
                shown.contains("\"Architecture\": \"amd64\"") && shown.contains("PATH=/bin"),
                "{shown}"
            );
        }
        let Some(_) = must(
            "skopeo",
            &[
                "inspect",
                "--config",
                &format!("docker-archive:{docker}:example.org/team/app:1.0"),
            ],
        ) else {
            return;
        };
        let copy = world.path(&format!("copy-{compression}-{types:?}"));
        must(
            "skopeo",
            &[
                "copy",
                "-q",
                &format!("docker-archive:{docker}"),
                &format!("dir:{}", copy.display()),
            ],
        );
    }
}

#[test]
fn umoci_unpacks_a_layout() {
    let world = World::new();
    let folder = world.path("layout");
    let assembled = assemble(&world.context(), &image(world.sample(), "linux/amd64", &["app:v1"])).expect("assemble");
    write_layout(&world.store, &assembled, &folder).expect("layout");
    let bundle = world.path("bundle");
    let place = format!("{}:v1", folder.display());
    let arguments = ["unpack", "--image", &place, &bundle.display().to_string()];
    let arguments: Vec<&str> = arguments.into_iter().collect();
    let Some(_) = must("umoci", &arguments) else { return };
    let root = bundle.join("rootfs");
    assert_eq!(std::fs::read(root.join("etc/os-release")).expect("file"), b"NAME=test");
    assert!(!root.join("etc/passwd").exists(), "removed by the second layer");
    assert_eq!(
        std::fs::read_link(root.join("bin/sh")).expect("link"),
        Path::new("tool")
    );
}

#[test]
fn a_layout_keeps_other_images_and_replaces_its_own() {
    let world = World::new();
    let folder = world.path("layout");
    let write = |text: &str, names: &[&str]| {
        let snapshot = world.snapshot(&[world.tree(None, text)]);
        let assembled = assemble(&world.context(), &image(snapshot, "linux/amd64", names)).expect("assemble");
        write_layout(&world.store, &assembled, &folder).expect("layout");
        assembled.descriptor().digest.clone()
    };
    let one = write("f a 644 1", &["app:1", "app:x"]);
    let two = write("f a 644 2", &["app:2"]);
    let newer = write("f a 644 3", &["app:x"]);
    let nameless = write("f a 644 4", &[]);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("index.json")).expect("index")).expect("json");
    let found: Vec<_> = index["manifests"]
        .as_array()
        .expect("manifests")
        .iter()
        .map(|entry| {
            let text = |key: &str| entry["annotations"][key].as_str().unwrap_or("-").to_owned();
            let digest = entry["digest"].as_str().expect("digest").to_owned();
            (
                text("io.containerd.image.name"),
                text("org.opencontainers.image.ref.name"),
                digest,
            )
        })
        .collect();
    let name = |tag: &str| format!("docker.io/library/app:{tag}");
    assert_eq!(
        found,
        [
            (name("1"), "1".to_owned(), one),
            (name("2"), "2".to_owned(), two),
            (name("x"), "x".to_owned(), newer),
            ("-".to_owned(), "latest".to_owned(), nameless),
        ]
    );
}

#[tokio::test]
async fn layouts_are_sources_too() {
    let world = World::new();
    let snapshot = world.sample();
    let mut plan = image(snapshot.clone(), "linux/amd64", &["team/app:1"]);
    plan.index = IndexUse::Always;
    let tar = world.path("image.tar");
    archive(&world, &plan, ArchiveKind::Oci, &tar);
    let folder = world.path("layout");
    let assembled = assemble(&world.context(), &plan).expect("assemble");
    write_layout(&world.store, &assembled, &folder).expect("layout");
    for path in [&tar, &folder] {
        for name in [None, Some("1"), Some("team/app:1"), Some("docker.io/team/app:1")] {
            let there = World::new();
            let source = there.source();
            let platform = "linux/amd64".parse().expect("platform");
            let resolved = source
                .resolve_layout(path.clone(), name.map(str::to_owned), None, &platform)
                .await
                .expect("resolve");
            let pulled = source.pull(&resolved, &there.lease, &silent()).await.expect("pull");
            assert_eq!(pulled.tree, snapshot.tree, "{path:?} {name:?}");
        }
        let platform = "linux/amd64".parse().expect("platform");
        let err = world
            .source()
            .resolve_layout(path.clone(), Some("other".into()), None, &platform)
            .await
            .expect_err("no such name");
        assert!(matches!(err, ImageError::NotInLayout { .. }), "{err}");
    }
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let world = World::new();
    let snapshot = world.snapshot(&[world.tree(None, "f a 644 1")]);
    let mut plan = image(snapshot.clone(), "linux/amd64", &[]);
    plan.annotations.index.insert("k".into(), "v".into());
    assert!(matches!(assemble(&world.context(), &plan), Err(ImageError::Options(_))));
    plan.index = IndexUse::Always;
    let indexed = assemble(&world.context(), &plan).expect("an index may have them");
    let refused = write_archive(
        &world.store,
        &indexed,
        ArchiveKind::Docker,
        Destination::Stream(&mut Vec::new()),
    );
    assert!(matches!(refused, Err(ImageError::Options(_))));
    plan.media_types = MediaTypes::Docker;
    assert!(matches!(assemble(&world.context(), &plan), Err(ImageError::Options(_))));
    let mut context = world.context();
    context.cancelled = &|| true;
    let plain = image(world.snapshot(&[world.tree(None, "f b 644 2")]), "linux/amd64", &[]);
    assert!(matches!(assemble(&context, &plain), Err(ImageError::Cancelled)));
}

#[test]
fn metadata_names_the_image() {
    let world = World::new();
    let snapshot = world.snapshot(&[world.tree(None, "f a 644 1")]);
    let assembled = assemble(&world.context(), &image(snapshot, "linux/arm64/v8", &["app"])).expect("assemble");
    let metadata = assembled.metadata().expect("metadata");
    let keys: Vec<_> = metadata.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "containerimage.config.digest",
            "containerimage.descriptor",
            "containerimage.digest",
            "image.name"
        ]
    );
    assert_eq!(metadata["image.name"], "docker.io/library/app:latest");
    let descriptor = &metadata["containerimage.descriptor"];
    assert_eq!(descriptor["digest"], metadata["containerimage.digest"]);
    assert_eq!(descriptor["platform"]["architecture"], "arm64");
    assert_eq!(
        descriptor["annotations"]["org.opencontainers.image.created"],
        "2023-11-14T22:13:20Z"
    );
}

#[test]
fn times_are_rewritten_in_new_layers_only_when_asked() {
    let world = World::new();
    let snapshot = world.sample();
    let digest = |clamp: Option<i64>| {
        let mut plan = image(snapshot.clone(), "linux/amd64", &[]);
        plan.layers.clamp_mtime = clamp;
        assemble(&world.context(), &plan)
            .expect("assemble")
            .descriptor()
            .digest
            .clone()
    };
    // The sample's times are 1,600,000,000.
    let kept = digest(None);
    assert_eq!(digest(Some(1_700_000_000)), kept);
    assert_ne!(digest(Some(1_500_000_000)), kept);
}

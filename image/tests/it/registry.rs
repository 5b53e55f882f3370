//! Against a `docker-registry` process.

use cbs_image::ImageError;
use cbs_image::codec::Compression;
use cbs_image::export::{PushOptions, assemble, push};
use cbs_image::layer::Recompress;
use cbs_image::manifest::MediaTypes;
use cbs_image::platform::Platform;
use cbs_image::reference::Reference;
use cbs_image::registry::{RegistryConfig, RegistryErrorKind};
use cbs_image::source::Freshness;

use super::support::*;

fn platform(text: &str) -> Platform {
    text.parse().expect("platform")
}

fn reference(text: &str) -> Reference {
    text.parse().expect("reference")
}

#[tokio::test(flavor = "multi_thread")]
async fn push_pull_and_push_again() {
    let here = World::new();
    let Some(registry) = RegistryProcess::start(here.dir.path(), None) else {
        return;
    };
    let names = [
        format!("{}/team/app:1", registry.host),
        format!("{}/team/app:two", registry.host),
    ];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let snapshot = here.sample();
    for (types, compression) in [
        (MediaTypes::Oci, Compression::Gzip),
        (MediaTypes::Docker, Compression::Gzip),
        (MediaTypes::Oci, Compression::Zstd),
        (MediaTypes::Docker, Compression::None),
    ] {
        let mut plan = image(snapshot.clone(), "linux/amd64", &names);
        plan.media_types = types;
        plan.layers.compression = compression;
        let assembled = assemble(&here.context(), &plan).expect("assemble");
        push(&here.source(), &assembled, &PushOptions::default(), silent())
            .await
            .expect("push");

        let there = World::new();
        let source = there.source();
        let resolved = source
            .resolve(&reference(names[1]), &platform("linux/amd64"), Freshness::Current)
            .await
            .expect("resolve");
        assert_eq!(
            resolved.digest.oci(),
            assembled.descriptor().digest,
            "{types:?} {compression}"
        );
        let pulled = source.pull(&resolved, &there.lease, &silent()).await.expect("pull");
        assert_eq!(pulled.tree, snapshot.tree, "{types:?} {compression}");
        assert_eq!(pulled.layers.len(), 2);
        assert!(
            pulled
                .layers
                .iter()
                .zip(&snapshot.layers)
                .all(|(own, other)| own.diff == other.diff)
        );

        // The very blobs go out again, whatever compression is asked for, and are mounted where they can be.
        let copy = format!("{}/other/copy:1", registry.host);
        let mut plan = image(pulled, "linux/amd64", &[&copy]);
        plan.media_types = types;
        let again = assemble(&there.context(), &plan).expect("assemble");
        assert_eq!(again.descriptor().digest, assembled.descriptor().digest);
        assert!(again.missing_layers(&there.store).expect("missing").is_empty());
        push(&source, &again, &PushOptions::default(), silent())
            .await
            .expect("push the copy");
        if types == MediaTypes::Oci {
            must(
                "skopeo",
                &["inspect", "--tls-verify=false", &format!("docker://{copy}")],
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_each_platform_its_image() {
    let here = World::new();
    let Some(registry) = RegistryProcess::start(here.dir.path(), None) else {
        return;
    };
    let name = format!("{}/multi:latest", registry.host);
    let amd = here.snapshot(&[here.tree(None, "f arch 644 amd64")]);
    let arm = here.snapshot(&[here.tree(None, "f arch 644 arm64")]);
    let mut plan = image(amd.clone(), "linux/amd64", &[&name]);
    plan.platforms.push(platform_image(arm.clone(), "linux/arm64"));
    let assembled = assemble(&here.context(), &plan).expect("assemble");
    assert_eq!(assembled.config_digest(), None);
    push(&here.source(), &assembled, &PushOptions::default(), silent())
        .await
        .expect("push");

    let there = World::new();
    let source = there.source();
    for (wanted, want) in [
        ("linux/amd64/v3", &amd),
        ("linux/arm64/v8", &arm),
        ("linux/arm64/v9", &arm),
    ] {
        let resolved = source
            .resolve(&reference(&name), &platform(wanted), Freshness::Known)
            .await
            .expect("resolve");
        assert_eq!(resolved.digest.oci(), assembled.descriptor().digest);
        let pulled = source.pull(&resolved, &there.lease, &silent()).await.expect("pull");
        assert_eq!(pulled.tree, want.tree, "{wanted}");
    }
    let err = source
        .resolve(&reference(&name), &platform("linux/riscv64"), Freshness::Known)
        .await
        .expect_err("no such platform");
    assert!(
        err.to_string()
            .ends_with("has no image for linux/riscv64; it has linux/amd64, linux/arm64"),
        "{err}"
    );
    assert!(err.help().is_some());

    // Everything is known now: the registry may go.
    drop(registry);
    let resolved = source
        .resolve(&reference(&name), &platform("linux/amd64"), Freshness::Known)
        .await
        .expect("known");
    source
        .pull(&resolved, &there.lease, &silent())
        .await
        .expect("nothing to fetch");
    let err = source
        .resolve(&reference(&name), &platform("linux/amd64"), Freshness::Current)
        .await
        .expect_err("gone");
    let ImageError::Registry(err) = err else {
        panic!("{err}")
    };
    assert!(matches!(err.kind, RegistryErrorKind::Connect(_)), "{err}");
    assert!(err.help().expect("help").contains("is running and reachable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_layers_are_converted_on_demand_and_restored_when_collected() {
    let here = World::new();
    let Some(registry) = RegistryProcess::start(here.dir.path(), None) else {
        return;
    };
    let name = format!("{}/app:1", registry.host);
    let assembled = assemble(&here.context(), &image(here.sample(), "linux/amd64", &[&name])).expect("assemble");
    push(&here.source(), &assembled, &PushOptions::default(), silent())
        .await
        .expect("push");

    let there = World::new();
    let source = there.source();
    let resolved = source
        .resolve(&reference(&name), &platform("linux/amd64"), Freshness::Known)
        .await
        .expect("resolve");
    let pulled = source.pull(&resolved, &there.lease, &silent()).await.expect("pull");
    there.store.flush().expect("flush");
    for file in std::fs::read_dir(there.path("store/layers")).expect("layers") {
        std::fs::remove_file(file.expect("entry").path()).expect("collect");
    }
    let mut plan = image(pulled, "linux/amd64", &[&name]);
    let again = assemble(&there.context(), &plan).expect("names are enough");
    let missing = again.missing_layers(&there.store).expect("missing");
    assert_eq!(missing.len(), 2);
    plan.layers.compression = Compression::Zstd;
    plan.layers.recompress = Recompress::WhenDifferent;
    assert!(matches!(
        assemble(&there.context(), &plan),
        Err(ImageError::BlobGone { .. })
    ));
    for blob in &missing {
        source.restore(blob).await.expect("restore");
    }
    assert!(again.missing_layers(&there.store).expect("missing").is_empty());
    let converted = assemble(&there.context(), &plan).expect("convert");
    assert_ne!(converted.descriptor().digest, again.descriptor().digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_needed_and_used() {
    let here = World::new();
    let line = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let Some(registry) = RegistryProcess::start(here.dir.path(), Some(line)) else {
        return;
    };
    let name = format!("{}/private/app:1", registry.host);
    let assembled = assemble(&here.context(), &image(here.sample(), "linux/amd64", &[&name])).expect("assemble");
    let err = push(&here.source(), &assembled, &PushOptions::default(), silent())
        .await
        .expect_err("no login");
    let ImageError::Registry(err) = err else {
        panic!("{err}")
    };
    assert!(
        matches!(err.kind, RegistryErrorKind::Unauthorized { had_credentials: false }),
        "{err}"
    );
    assert!(err.help().expect("help").contains("docker login"));

    let login = |text: &str| RegistryConfig {
        credentials: credentials(&format!(r#"{{"auths":{{"{}":{text}}}}}"#, registry.host)),
        ..RegistryConfig::default()
    };
    let wrong = here.source_with(login(r#"{"username":"user","password":"wrong"}"#));
    let err = push(&wrong, &assembled, &PushOptions::default(), silent())
        .await
        .expect_err("wrong password");
    let ImageError::Registry(err) = err else {
        panic!("{err}")
    };
    assert!(
        matches!(err.kind, RegistryErrorKind::Unauthorized { had_credentials: true }),
        "{err}"
    );

    let right = here.source_with(login(r#"{"username":"user","password":"secret"}"#));
    push(&right, &assembled, &PushOptions::default(), silent())
        .await
        .expect("push");
    let resolved = right
        .resolve(&reference(&name), &platform("linux/amd64"), Freshness::Current)
        .await
        .expect("resolve");
    right.pull(&resolved, &here.lease, &silent()).await.expect("pull");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let here = World::new();
    let Some(registry) = RegistryProcess::start(here.dir.path(), None) else {
        return;
    };
    for name in [
        "nothing:latest",
        "a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ] {
        let name = format!("{}/{name}", registry.host);
        let err = here
            .source()
            .resolve(&reference(&name), &platform("linux/amd64"), Freshness::Known)
            .await
            .expect_err("not there");
        assert_eq!(
            err.to_string(),
            format!(
                "cannot pull the manifest of `{name}`: not found (registry {})",
                registry.host
            )
        );
    }
}

/// Callers spawn these.
#[test]
fn futures_can_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let world = World::new();
    let source = world.source();
    let assembled = assemble(&world.context(), &image(world.sample(), "linux/amd64", &["app"])).expect("assemble");
    let (name, platform) = (reference("app"), platform("linux/amd64"));
    drop(is_send(push(&source, &assembled, &PushOptions::default(), silent())));
    let resolve = is_send(source.resolve(&name, &platform, Freshness::Known));
    drop(is_send(async {
        let resolved = resolve.await?;
        source.pull(&resolved, &world.lease, &silent()).await
    }));
}

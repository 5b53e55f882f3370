//! Against a scripted registry: tokens, broken transfers, mirrors, wrong bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use cbs_image::ImageError;
use cbs_image::export::assemble;
use cbs_image::manifest::{Descriptor, Document};
use cbs_image::reference::Reference;
use cbs_image::registry::{HostConfig, RegistryConfig, RegistryErrorKind};
use cbs_image::source::Freshness;
use cbs_store::Sha256Digest;

use super::support::*;

/// An image as a registry has it: documents and blobs by digest.
struct Content {
    root: String,
    parts: BTreeMap<String, Vec<u8>>,
    tree: cbs_store::TreeDigest,
}

fn content() -> Content {
    let world = World::new();
    let snapshot = world.sample();
    let tree = snapshot.tree;
    let assembled = assemble(&world.context(), &image(snapshot, "linux/amd64", &[])).expect("assemble");
    let folder = world.path("layout");
    cbs_image::export::write_layout(&world.store, &assembled, &folder).expect("layout");
    let parts = std::fs::read_dir(folder.join("blobs/sha256"))
        .expect("blobs")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let name = path.file_name().expect("name").to_string_lossy().into_owned();
            (format!("sha256:{name}"), std::fs::read(path).expect("blob"))
        })
        .collect();
    Content {
        root: assembled.descriptor().digest.clone(),
        parts,
        tree,
    }
}

impl Content {
    /// Answers as a registry without logins does.
    fn answer(&self, request: &Request) -> Response {
        let path = request.path.split('?').next().unwrap_or_default();
        if path == "/v2/" {
            return Response::new(200, "");
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let digest = if path.contains("/manifests/") && !name.contains(':') {
            &self.root
        } else {
            name
        };
        let Some(bytes) = self.parts.get(digest) else {
            return Response::new(404, "");
        };
        let range = request
            .headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match range {
            Some(start) => Response::new(206, &bytes[start..]),
            None => Response::new(200, bytes.clone()),
        }
        .header("Docker-Content-Digest", digest.to_owned())
        .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
    }

    /// The descriptor of the largest layer.
    fn layer(&self) -> Descriptor {
        let Ok(Document::Manifest(manifest)) = Document::parse(&self.parts[&self.root]) else {
            panic!("manifest")
        };
        manifest
            .layers
            .into_iter()
            .max_by_key(|layer| layer.size)
            .expect("a layer")
    }
}

fn reference(host: &str) -> Reference {
    format!("{host}/team/app:1").parse().expect("reference")
}

async fn pull(world: &World, config: RegistryConfig, reference: &Reference) -> Result<cbs_store::Snapshot, ImageError> {
    let source = world.source_with(config);
    let platform = "linux/amd64".parse().expect("platform");
    let resolved = source.resolve(reference, &platform, Freshness::Current).await?;
    source.pull(&resolved, &world.lease, &silent()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_transfers_go_on_where_they_stopped() {
    let content = content();
    let (tree, layer) = (content.tree, content.layer());
    let failures = AtomicUsize::new(0);
    let digest = layer.digest.clone();
    let script = Script::start(move |_, request| {
        let mut response = content.answer(request);
        if request.path.contains(&digest) {
            match failures.fetch_add(1, Ordering::Relaxed) {
                0 => response.cut = Some(1000),
                1 => return Response::new(503, "busy"),
                2 => response.cut = Some(70_000),
                // A host that knows no ranges.
                3 => {
                    response = content.answer(&Request {
                        headers: Default::default(),
                        ..request.clone()
                    })
                }
                _ => {}
            }
        }
        response
    });
    let world = World::new();
    let snapshot = pull(&world, RegistryConfig::default(), &reference(&script.host))
        .await
        .expect("pull");
    assert_eq!(snapshot.tree, tree);
    let ranges: Vec<_> = script
        .requests()
        .into_iter()
        .filter(|request| request.path.contains(&layer.digest))
        .map(|request| request.headers.get("range").cloned().unwrap_or_default())
        .collect();
    assert_eq!(ranges, ["bytes=0-", "bytes=1000-", "bytes=1000-", "bytes=71000-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_nothing_is_kept() {
    let content = content();
    let layer = content.layer();
    let digest = layer.digest.clone();
    let script = Script::start(move |_, request| {
        let mut response = content.answer(request);
        if request.path.contains(&digest) {
            let middle = response.body.len() / 2;
            response.body[middle] ^= 1;
        }
        response
    });
    let world = World::new();
    let err = pull(&world, RegistryConfig::default(), &reference(&script.host))
        .await
        .expect_err("wrong bytes");
    assert!(matches!(err, ImageError::DigestMismatch { what: "layer", .. }), "{err}");
    let digest = layer.sha256().expect("digest");
    assert!(world.store.open_oci_blob(&digest).expect("look").is_none());
    let asked = script
        .requests()
        .iter()
        .filter(|request| request.path.contains(&layer.digest))
        .count();
    assert_eq!(asked, 2, "asked once more, then given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_renewed_and_never_sent_elsewhere() {
    let content = content();
    let tree = content.tree;
    let issued = AtomicUsize::new(0);
    let script = Script::start(move |host, request| {
        if request.path.starts_with("/token") {
            let number = issued.fetch_add(1, Ordering::Relaxed);
            return Response::new(200, format!(r#"{{"token":"t{number}","expires_in":300}}"#));
        }
        let number = issued.load(Ordering::Relaxed);
        // The first token is revoked at once.
        let is_fine = number > 1 && request.headers.get("authorization") == Some(&format!("Bearer t{}", number - 1));
        if is_fine {
            return content.answer(request);
        }
        Response::new(401, "").header(
            "WWW-Authenticate",
            format!(r#"Bearer realm="http://{host}/token",service="a service",scope="x""#),
        )
    });
    let config = RegistryConfig {
        credentials: credentials(&format!(
            r#"{{"auths":{{"{}":{{"username":"u","password":"p"}}}}}}"#,
            script.host
        )),
        ..RegistryConfig::default()
    };
    let world = World::new();
    let snapshot = pull(&world, config, &reference(&script.host)).await.expect("pull");
    assert_eq!(snapshot.tree, tree);
    let requests = script.requests();
    let tokens: Vec<_> = requests
        .iter()
        .filter(|request| request.path.starts_with("/token"))
        .collect();
    assert_eq!(tokens.len(), 2, "one token serves all requests until it is refused");
    assert_eq!(
        tokens[0].path,
        "/token?service=a+service&scope=repository%3Ateam%2Fapp%3Apull"
    );
    assert_eq!(tokens[0].headers["authorization"], "Basic dTpw");
    let basics = requests
        .iter()
        .filter(|request| !request.path.starts_with("/token"))
        .filter(|request| {
            request
                .headers
                .get("authorization")
                .is_some_and(|value| value.starts_with("Basic"))
        });
    assert_eq!(basics.count(), 0, "the password goes to the token server only");
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_tokens_are_traded() {
    let content = content();
    let script = Script::start(move |host, request| {
        if request.path == "/token" {
            return Response::new(200, r#"{"access_token":"access"}"#);
        }
        if request.headers.get("authorization").map(String::as_str) == Some("Bearer access") {
            return content.answer(request);
        }
        Response::new(401, "").header(
            "WWW-Authenticate",
            format!(r#"Bearer realm="http://{host}/token",service="s""#),
        )
    });
    let config = RegistryConfig {
        credentials: credentials(&format!(
            r#"{{"auths":{{"{}":{{"identitytoken":"re fresh"}}}}}}"#,
            script.host
        )),
        ..RegistryConfig::default()
    };
    pull(&World::new(), config, &reference(&script.host))
        .await
        .expect("pull");
    let trade = script
        .requests()
        .into_iter()
        .find(|request| request.path == "/token")
        .expect("asked");
    assert_eq!(trade.method, "POST");
    assert_eq!(
        trade.body,
        "grant_type=refresh_token&client_id=cbs&refresh_token=re+fresh&scope=repository%3Ateam%2Fapp%3Apull&service=s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_and_their_failures_do_not_count() {
    let content = content();
    let tree = content.tree;
    let (one, two) = (
        std::sync::Arc::new(content),
        Script::start(|_, _| Response::new(404, "")),
    );
    let shared = std::sync::Arc::clone(&one);
    let mirror = Script::start(move |_, request| {
        // A mirror that lacks the layers.
        if request.path.contains("/blobs/") {
            Response::new(404, "")
        } else {
            shared.answer(request)
        }
    });
    let origin = Script::start(move |_, request| one.answer(request));
    let config = RegistryConfig {
        hosts: [(
            origin.host.clone(),
            HostConfig {
                mirrors: vec![two.host.clone(), format!("http://{}/prefix", mirror.host)],
                ..HostConfig::default()
            },
        )]
        .into(),
        retries: 0,
        ..RegistryConfig::default()
    };
    let snapshot = pull(&World::new(), config, &reference(&origin.host))
        .await
        .expect("pull");
    assert_eq!(snapshot.tree, tree);
    assert!(!two.requests().is_empty());
    let asked = mirror.requests();
    assert!(
        asked
            .iter()
            .any(|request| request.path.starts_with("/v2/prefix/team/app/manifests/")),
        "{asked:?}"
    );
    assert!(
        asked
            .iter()
            .any(|request| request.path.ends_with(&format!("?ns={}", origin.host)))
    );
    assert!(origin.requests().iter().any(|request| request.path.contains("/blobs/")));
    assert!(
        !origin
            .requests()
            .iter()
            .any(|request| request.path.contains("/manifests/"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_are_errors() {
    type Answer = fn(&str, &Request) -> Response;
    let cases: [(&str, Answer); 5] = [
        ("html", |_, _| Response::new(200, "<html>hello</html>")),
        ("wrong login", |_, _| {
            Response::new(401, "").header("WWW-Authenticate", "Negotiate")
        }),
        ("bad token", |host, request| {
            if request.path.starts_with("/token") {
                return Response::new(200, "{\"token\":\"a\\nb\"}");
            }
            Response::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\""))
        }),
        ("endless index", |_, request| {
            let body = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
            match request.path.as_str() {
                "/v2/" => Response::new(200, ""),
                _ => Response::new(200, &body[..]),
            }
        }),
        ("old schema", |_, request| match request.path.as_str() {
            "/v2/" => Response::new(200, ""),
            _ => Response::new(200, r#"{"schemaVersion":1,"name":"x"}"#),
        }),
    ];
    for (what, answer) in cases {
        let script = Script::start(answer);
        let config = RegistryConfig {
            retries: 0,
            ..RegistryConfig::default()
        };
        let err = pull(&World::new(), config, &reference(&script.host))
            .await
            .expect_err(what);
        assert!(!err.to_string().is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_tls_trouble_says_so() {
    let script = Script::start(|_, _| Response::new(200, ""));
    let config = RegistryConfig {
        hosts: [(
            script.host.clone(),
            HostConfig {
                security: cbs_image::registry::Security::Tls,
                ..HostConfig::default()
            },
        )]
        .into(),
        retries: 0,
        ..RegistryConfig::default()
    };
    let reference = reference(&script.host).with_digest(Sha256Digest::of(b"x"));
    let err = pull(&World::new(), config, &reference).await.expect_err("no tls here");
    let ImageError::Registry(err) = err else {
        panic!("{err}")
    };
    assert!(matches!(err.kind, RegistryErrorKind::Tls(_)), "{err}");
    assert!(err.help().expect("help").contains("insecure registry"));
}

/// A layout of one image with these uncompressed layers.
fn hand_made_layout(folder: &std::path::Path, layers: &[Vec<u8>]) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("folder");
    let put = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        std::fs::write(blobs.join(descriptor.sha256().expect("digest").to_string()), bytes).expect("blob");
        descriptor
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| Sha256Digest::of(layer).oci()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let manifest = cbs_image::manifest::Manifest::new(
        cbs_image::manifest::MediaTypes::Oci,
        put(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        ),
        layers
            .iter()
            .map(|layer| put("application/vnd.oci.image.layer.v1.tar", layer))
            .collect(),
        Default::default(),
    );
    let manifest = serde_json::to_vec(&manifest).expect("json");
    let root = put("application/vnd.oci.image.manifest.v1+json", &manifest);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [root]});
    std::fs::write(folder.join("index.json"), index.to_string()).expect("index");
}

fn member(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, link: Option<&str>) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(7);
    header.set_gid(7);
    header.set_mtime(1_000);
    header.set_size(0);
    match link {
        Some(target) => tar.append_link(&mut header, path, target).expect("link"),
        None => tar.append_data(&mut header, path, std::io::empty()).expect("member"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_without_folders_take_them_from_below() {
    let base = |mode: u32| {
        let mut tar = tar::Builder::new(Vec::new());
        member(&mut tar, "private/", tar::EntryType::Directory, mode, None);
        member(&mut tar, "private/old", tar::EntryType::Regular, 0o600, None);
        tar.into_inner().expect("tar")
    };
    let mut upper = tar::Builder::new(Vec::new());
    member(&mut upper, "private/new", tar::EntryType::Regular, 0o644, None);
    member(
        &mut upper,
        "private/linked",
        tar::EntryType::Link,
        0o644,
        Some("private/old"),
    );
    let upper = upper.into_inner().expect("tar");
    let world = World::new();
    let source = world.source();
    for round in 0..2 {
        for mode in [0o700, 0o751] {
            let folder = world.path(&format!("layout-{mode}-{round}"));
            hand_made_layout(&folder, &[base(mode), upper.clone()]);
            let platform = "linux/amd64".parse().expect("platform");
            let resolved = source
                .resolve_layout(folder, None, None, &platform)
                .await
                .expect("resolve");
            let pulled = source.pull(&resolved, &world.lease, &silent()).await.expect("pull");
            let look = |path: &str| {
                cbs_store::edit::lookup(&world.store, &pulled.tree, path)
                    .expect(path)
                    .expect(path)
            };
            assert_eq!(
                (look("private").meta.mode, look("private").meta.uid),
                (mode, 7),
                "round {round}"
            );
            look("private/new");
            look("private/linked");
        }
    }
}

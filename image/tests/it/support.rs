//! A store to work in, trees from a few words, a real registry and a scripted one.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cbs_image::auth::DockerConfig;
use cbs_image::codec::Pool;
use cbs_image::config::ImageConfig;
use cbs_image::export::{ExportContext, ExportTime, ImageAnnotations, ImageToExport, IndexUse, PlatformImage};
use cbs_image::layer::LayerOptions;
use cbs_image::manifest::{Annotations, MediaTypes};
use cbs_image::platform::Platform;
use cbs_image::progress::{Progress, Silent};
use cbs_image::registry::{Registry, RegistryConfig, install_tls_provider};
use cbs_image::source::{ImageSource, Network};
use cbs_store::edit::Edit;
use cbs_store::{
    Access, BlobStore, Entry, Layer, Lease, LinkGroup, Metadata, Node, Snapshot, Store, Timestamp, TreeDigest, diff,
};
use tempfile::TempDir;

/// A store in a temporary folder.
pub(crate) struct World {
    pub(crate) lease: Arc<Lease>,
    pub(crate) store: Store,
    pub(crate) pool: Pool,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_threads(2)
    }

    pub(crate) fn with_threads(threads: usize) -> Self {
        let dir = TempDir::new().expect("temporary folder");
        let store = Store::open(&dir.path().join("store"), Access::ReadWrite).expect("store");
        Self {
            lease: Arc::new(store.lease().expect("lease")),
            pool: Pool::new(NonZeroUsize::new(threads).expect("not zero")).expect("threads"),
            store,
            dir,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn context(&self) -> ExportContext<'_> {
        ExportContext {
            store: &self.store,
            lease: &self.lease,
            pool: &self.pool,
            progress: &Silent,
            cancelled: &|| false,
        }
    }

    pub(crate) fn source(&self) -> ImageSource {
        self.source_with(RegistryConfig::default())
    }

    pub(crate) fn source_with(&self, config: RegistryConfig) -> ImageSource {
        install_tls_provider();
        let parallel = NonZeroUsize::new(3).expect("not zero");
        ImageSource::new(self.store.clone(), Registry::new(config), Network::Online, parallel)
    }

    /// A tree made by the lines of `text` over `base`:
    /// `d PATH MODE`, `f PATH MODE TEXT`, `l PATH TARGET`, `h PATH EXISTING`, `p PATH MODE`, `r PATH` (remove).
    pub(crate) fn tree(&self, base: Option<&TreeDigest>, text: &str) -> TreeDigest {
        let mut edit = match base {
            Some(base) => Edit::new(&self.store, base),
            None => Edit::scratch(&self.store),
        };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let mode = |position: usize| {
                words
                    .get(position)
                    .map_or(0o644, |text| u32::from_str_radix(text, 8).expect("mode"))
            };
            let (mode, node) = match words[0] {
                "d" => (mode(2), Node::Directory(cbs_store::Directory::default().seal().0)),
                "f" => (mode(2), self.file(words.get(3).copied().unwrap_or_default().as_bytes())),
                "l" => (0o777, Node::Symlink(words[2].as_bytes().to_vec())),
                "p" => (mode(2), Node::Fifo),
                "r" => {
                    edit.remove(&cbs_store::edit::Remove {
                        path: words[1],
                        allow_not_found: false,
                        allow_wildcard: false,
                    })
                    .expect("remove");
                    continue;
                }
                other => panic!("unknown line {other}"),
            };
            if words[0] == "d" {
                let empty = cbs_store::Directory::default();
                cbs_store::DirectoryStore::put_directory(&self.store, empty).expect("directory");
            }
            edit.put(words[1], &entry(mode, node)).expect(line);
        }
        edit.commit().expect("commit")
    }

    pub(crate) fn file(&self, bytes: &[u8]) -> Node {
        Node::File {
            blob: self.store.put_bytes(bytes).expect("blob"),
            size: bytes.len() as u64,
            link: None,
        }
    }

    /// Two names of one file, as a tree.
    pub(crate) fn linked(&self, bytes: &[u8]) -> TreeDigest {
        let mut directory = cbs_store::Directory::empty_root();
        let Node::File { blob, size, .. } = self.file(bytes) else {
            unreachable!()
        };
        for name in ["one", "two"] {
            let link = Some(LinkGroup { id: 7, count: 2 });
            let mut entry = entry(0o640, Node::File { blob, size, link });
            entry.name = name.into();
            directory.set(entry);
        }
        cbs_store::DirectoryStore::put_directory(&self.store, directory)
            .expect("directory")
            .digest
    }

    /// A snapshot whose layers lead from tree to tree.
    pub(crate) fn snapshot(&self, trees: &[TreeDigest]) -> Snapshot {
        let mut below = None;
        let mut layers = Vec::new();
        for tree in trees {
            let diff = diff::diff(&self.store, below, tree).expect("diff");
            layers.push(Layer { diff, diff_id: None });
            below = Some(tree);
        }
        Snapshot {
            tree: *trees.last().expect("a tree"),
            layers,
        }
    }

    /// A small root and one layer above it.
    pub(crate) fn sample(&self) -> Snapshot {
        let noise: String = (0..40_000_u32)
            .map(|number| format!("{:x} ", number.wrapping_mul(2_654_435_761)))
            .collect();
        let base = self.tree(
            None,
            &format!(
                "d etc 755\nf etc/passwd 644 root:x:0:0::/:/bin/sh\nf bin/tool 755 {noise}\nl bin/sh tool\nd tmp 1777"
            ),
        );
        let top = self.tree(
            Some(&base),
            "r etc/passwd\nf etc/os-release 600 NAME=test\np run/pipe 600",
        );
        self.snapshot(&[base, top])
    }
}

fn entry(mode: u32, node: Node) -> Entry {
    let mut meta = Metadata::new(mode);
    meta.mtime = Timestamp {
        seconds: 1_600_000_000,
        nanos: 0,
    };
    Entry {
        name: Vec::new(),
        meta,
        node,
    }
}

/// An image of one platform with these names.
pub(crate) fn image(snapshot: Snapshot, platform: &str, names: &[&str]) -> ImageToExport {
    ImageToExport {
        platforms: vec![platform_image(snapshot, platform)],
        index: IndexUse::WhenNeeded,
        names: names.iter().map(|name| name.parse().expect("name")).collect(),
        media_types: MediaTypes::Oci,
        annotations: ImageAnnotations::default(),
        layers: LayerOptions::default(),
        time: ExportTime {
            epoch: Some(1_700_000_000),
            now: 1_800_000_000,
        },
    }
}

pub(crate) fn platform_image(snapshot: Snapshot, platform: &str) -> PlatformImage {
    let platform: Platform = platform.parse().expect("platform");
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    config.config.env = vec!["PATH=/bin".to_owned()];
    config.config.cmd = vec!["/bin/tool".to_owned()];
    PlatformImage {
        platform,
        snapshot,
        config,
        base: None,
        notes: Vec::new(),
        manifest_annotations: Annotations::new(),
        descriptor_annotations: Annotations::new(),
    }
}

pub(crate) fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

pub(crate) fn credentials(json: &str) -> Arc<DockerConfig> {
    Arc::new(DockerConfig::default().with_environment(json).expect("docker config"))
}

/// Runs a tool to its end; `None` when it is not installed.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("skipped: `{program}` is not installed");
            None
        }
    }
}

/// As [`tool`], and fails when it fails; its output.
pub(crate) fn must(program: &str, arguments: &[&str]) -> Option<String> {
    let output = tool(program, arguments)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        text(&output.stderr)
    );
    Some(text(&output.stdout))
}

/// A `docker-registry` process on loopback; killed when dropped.
pub(crate) struct RegistryProcess {
    child: Child,
    pub(crate) host: String,
}

impl RegistryProcess {
    /// Starts one over `dir`; `None`, said aloud, when it is not installed. `htpasswd` asks for a login.
    pub(crate) fn start(dir: &Path, htpasswd: Option<&str>) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("port")
            .local_addr()
            .expect("address")
            .port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            dir.join("registry").display()
        );
        if let Some(line) = htpasswd {
            let path = dir.join("htpasswd");
            std::fs::write(&path, line).expect("htpasswd");
            config.push_str(&format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                path.display()
            ));
        }
        let path = dir.join("registry.yml");
        std::fs::write(&path, config).expect("config");
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            eprintln!("skipped: `docker-registry` is not installed");
            return None;
        };
        let registry = Self { child, host };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < deadline, "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for RegistryProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a scripted server is asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// What it answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Hang up after this many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Response {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An HTTP server that answers as a function says, and keeps what it was asked. Ends with the test process.
pub(crate) struct Script {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Script {
    pub(crate) fn start(answer: impl Fn(&str, &Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let host = listener.local_addr().expect("address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, own_host, answer) = (Arc::clone(&requests), host.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, host, answer) = (Arc::clone(&log), own_host.clone(), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &host, &log, &*answer));
            }
        });
        Self { host, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("lock").clone()
    }
}

fn serve(
    mut stream: TcpStream,
    host: &str,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&str, &Request) -> Response + Send + Sync),
) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        // Not HTTP, such as TLS: real servers answer in the clear.
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        return;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return;
    };
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("header");
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |text| text.parse().expect("length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("body");
    let request = Request {
        method,
        path,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    log.lock().expect("lock").push(request.clone());
    let response = answer(host, &request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", response.body.len()));
    let body = &response.body[..response.cut.unwrap_or(response.body.len())];
    // A client that hangs up early is part of the game.
    drop(stream.write_all(head.as_bytes()));
    if request.method != "HEAD" {
        drop(stream.write_all(body));
    }
}

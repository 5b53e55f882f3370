//! One thing to build, whichever command asked for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cbs_frontends::bake::{self, Annotation, Build, Call};
use cbs_frontends::dockerfile::{BuildOptions, GitRef, HostAddress, MainContext, NamedContext, ResolveMode};
use cbs_image::platform::Platform;
use cbs_image::reference::Reference;
use cbs_solver::pb;

use crate::output::{Output, OutputKind};
use crate::sources::Sources;

/// One thing to build.
#[derive(Clone, Debug)]
pub(crate) struct BuildTarget {
    /// What people call it.
    pub(crate) name: String,
    /// The gc root that keeps its result.
    pub(crate) root: String,
    /// What leads to it.
    pub(crate) work: Work,
    /// Named contexts that are results of other targets: context to target.
    pub(crate) linked: BTreeMap<String, String>,
    /// Nobody asked for it but another target.
    pub(crate) only_linked: bool,
    /// Where the result goes.
    pub(crate) outputs: Vec<Output>,
    /// The names of the image.
    pub(crate) names: Vec<Reference>,
    /// What its manifests say beside.
    pub(crate) annotations: Vec<Annotation>,
    /// The folder whose last commit gives the image its time.
    pub(crate) folder: Option<PathBuf>,
    /// What to do instead of building.
    pub(crate) call: Option<Call>,
}

/// What leads to a result.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// A Dockerfile.
    Dockerfile {
        /// Where it is.
        file: DockerfileAt,
        /// How it is built.
        options: Box<BuildOptions>,
    },
    /// A definition that was written elsewhere.
    Definition {
        /// It.
        definition: pb::Definition,
        /// What its result runs on.
        platform: Platform,
    },
}

/// Where a Dockerfile is.
#[derive(Clone, Debug)]
pub(crate) enum DockerfileAt {
    /// Here.
    Here(DockerfileText),
    /// In the main context, which must be fetched first.
    InContext(String),
    /// At a URL.
    Url(String),
    /// Nowhere that it could be read, and why: the failure of this target only.
    Unreadable(String),
}

/// A Dockerfile and what lies beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DockerfileText {
    /// What messages call it.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) data: Vec<u8>,
    /// The ignore file that belongs to it.
    pub(crate) ignore: Option<Vec<u8>>,
}

/// The process around, as far as targets care.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Where relative names in messages start.
    pub(crate) working_directory: PathBuf,
    /// Platforms of targets that name none.
    pub(crate) platforms: Vec<Platform>,
}

/// An attribute of a target has a value that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("target `{target}`, {attribute}: {reason}")]
pub(crate) struct WrongAttribute {
    /// The target.
    target: String,
    /// The attribute, by its name in bake files.
    pub(crate) attribute: &'static str,
    /// What is wrong with its value, and what there is instead.
    pub(crate) reason: String,
}

impl BuildTarget {
    /// The target of a planned build. What it reads is added to `sources`.
    pub(crate) fn of_build(
        build: &Build,
        root: String,
        sources: &mut Sources,
        around: &Surroundings,
    ) -> anyhow::Result<Self> {
        let wrong = |attribute: &'static str| {
            move |err: anyhow::Error| WrongAttribute {
                target: build.name.clone(),
                attribute,
                reason: format!("{err:#}"),
            }
        };
        refuse_what_is_missing(build)?;
        let mut options = options(build);
        let hosts = build
            .extra_hosts
            .iter()
            .map(|(host, address)| extra_host(host, address));
        options.extra_hosts = hosts.collect::<Result<_, _>>().map_err(wrong("extra-hosts"))?;
        options.network = network(build.network.as_deref()).map_err(wrong("network"))?;
        entitlements(&build.entitlements).map_err(wrong("entitlements"))?;
        if options.platforms.is_empty() {
            options.platforms.clone_from(&around.platforms);
        }
        let folder = main_context(build, &mut options, sources).map_err(wrong("context"))?;
        let mut linked = BTreeMap::new();
        for (name, context) in &build.contexts {
            if let bake::Context::Target(target) = context {
                linked.insert(name.clone(), target.clone());
            } else {
                let context = named_context(name, context, sources);
                let context = context
                    .with_context(|| format!("`{name}`"))
                    .map_err(wrong("contexts"))?;
                options.contexts.insert(name.clone(), context);
            }
        }
        let file = dockerfile(build, folder.as_deref(), around).map_err(wrong("dockerfile"));
        let file = file.unwrap_or_else(|err| DockerfileAt::Unreadable(err.to_string()));
        sources.add_secrets(&build.secrets, &around.environment)?;
        sources.add_ssh(&build.ssh)?;
        let names = build
            .tags
            .iter()
            .map(|tag| Ok(tag.parse::<Reference>()?.with_default_tag()));
        let names: Vec<Reference> = names.collect::<anyhow::Result<_>>().map_err(wrong("tags"))?;
        // Whoever only asks about a target pushes nothing.
        let needed = if build.call.is_some() { 1 } else { names.len() };
        Ok(Self {
            name: build.name.clone(),
            root,
            work: Work::Dockerfile {
                file,
                options: Box::new(options),
            },
            linked,
            only_linked: build.linked,
            outputs: outputs(&build.outputs, needed).map_err(wrong("output"))?,
            names,
            annotations: build.annotations.clone(),
            folder,
            call: build.call.clone(),
        })
    }
}

/// What a build asks for and cbs does not do. What only makes a build faster is a warning, not a failure.
fn refuse_what_is_missing(build: &Build) -> anyhow::Result<()> {
    let name = &build.name;
    for attestation in build.attestations.iter().filter(|attestation| !attestation.disabled) {
        let kind = &attestation.kind;
        tell!("warning: target `{name}`: {kind} attestations are not written yet; the image goes without");
    }
    for cache in &build.cache_from {
        tell!(
            "warning: target `{name}`: importing a {} cache is not possible yet",
            cache.kind
        );
    }
    for cache in &build.cache_to {
        tell!(
            "warning: target `{name}`: exporting a {} cache is not possible yet",
            cache.kind
        );
    }
    if build.policies.iter().any(|policy| !policy.disabled) {
        // Building what a policy may forbid would be worse than not building.
        bail!("target `{name}`: source policies are not evaluated yet");
    }
    Ok(())
}

fn options(build: &Build) -> BuildOptions {
    let mut options = BuildOptions::new(Platform::host());
    options.target = build.stage.clone();
    options.build_args = build.args.clone();
    options.labels = build.labels.clone();
    options.platforms = build.platforms.clone();
    options.no_cache = build.no_cache.clone();
    if build.pull {
        options.resolve_mode = ResolveMode::Pull;
    }
    options.shm_size = build.shm_size;
    options.ulimits = build
        .ulimits
        .iter()
        .map(|limit| pb::Ulimit {
            name: limit.name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        })
        .collect();
    options.resources = build.resources.clone();
    options
}

fn network(mode: Option<&str>) -> anyhow::Result<pb::NetMode> {
    Ok(match mode {
        None | Some("default" | "sandbox") => pb::NetMode::Unset,
        Some("none") => pb::NetMode::None,
        Some("host") => pb::NetMode::Host,
        Some(mode) => bail!("network `{mode}` is not known; there are default, none and host"),
    })
}

/// Refuses privileges that nobody could grant.
fn entitlements(asked: &[String]) -> anyhow::Result<()> {
    for text in asked {
        match text.split_once('=').map_or(text.as_str(), |(key, _)| key) {
            "network.host" | "security.insecure" | "device" => {}
            _ => bail!("`{text}` is not known; there are network.host, security.insecure and device"),
        }
    }
    Ok(())
}

/// Reads one extra host.
pub(crate) fn extra_host(host: &str, address: &str) -> anyhow::Result<(String, HostAddress)> {
    let bare = address
        .strip_prefix('[')
        .and_then(|bare| bare.strip_suffix(']'))
        .unwrap_or(address);
    let parsed = bare.parse();
    let parsed = parsed
        .with_context(|| format!("extra host `{host}`: `{address}` is neither an IP address nor `host-gateway`"))?;
    Ok((host.to_lowercase(), parsed))
}

/// Sets the main context; answers its folder when it is one of this machine.
fn main_context(build: &Build, options: &mut BuildOptions, sources: &mut Sources) -> anyhow::Result<Option<PathBuf>> {
    match &build.context {
        bake::Context::Local(path) => {
            let folder = existing_folder(path)?;
            let name = sources.local("context", &folder);
            options.context = MainContext::Local { name };
            return Ok(Some(folder));
        }
        bake::Context::Url(url) => options.context = remote_context(url)?,
        bake::Context::Archive { url, folder } => {
            options.context = MainContext::HttpArchive { url: url.clone() };
            options.context_subdir = Some(folder.clone()).filter(|folder| !folder.is_empty());
        }
        bake::Context::Target(_) | bake::Context::Image(_) | bake::Context::OciLayout(_) => {
            bail!("images and other targets cannot be the main context; give them a name in `contexts`")
        }
    }
    Ok(None)
}

/// A context behind a URL; whether a download is an archive or a Dockerfile turns out later.
fn remote_context(url: &str) -> anyhow::Result<MainContext> {
    Ok(match GitRef::parse_context(url)? {
        Some(_) => MainContext::Git { url: url.to_owned() },
        None => MainContext::HttpArchive { url: url.to_owned() },
    })
}

fn existing_folder(path: &str) -> anyhow::Result<PathBuf> {
    let found = std::fs::metadata(path).with_context(|| format!("folder `{path}`"))?;
    if !found.is_dir() {
        bail!("`{path}` is no folder");
    }
    // One folder has one name, whichever way leads to it.
    std::fs::canonicalize(path).with_context(|| format!("folder `{path}`"))
}

fn named_context(name: &str, context: &bake::Context, sources: &mut Sources) -> anyhow::Result<NamedContext> {
    Ok(match context {
        bake::Context::Local(path) => NamedContext::Local {
            name: sources.local(name, &existing_folder(path)?),
            shared_key: String::new(),
        },
        bake::Context::Url(url) => NamedContext::Url { url: url.clone() },
        bake::Context::Image(reference) => NamedContext::Image {
            reference: reference.clone(),
        },
        bake::Context::OciLayout(text) => {
            let parsed = NamedContext::parse(&format!("oci-layout://{text}"), "");
            match parsed.map_err(anyhow::Error::msg)? {
                NamedContext::OciLayout { store, digest, tag } => {
                    let path = std::path::absolute(&store).with_context(|| format!("layout `{store}`"))?;
                    std::fs::metadata(&path).with_context(|| format!("layout `{store}`"))?;
                    NamedContext::OciLayout {
                        store: sources.layout(name, &path),
                        digest,
                        tag,
                    }
                }
                other => other,
            }
        }
        bake::Context::Archive { .. } | bake::Context::Target(_) => {
            bail!("`{name}`: a folder of a fetched archive cannot be a named context yet")
        }
    })
}

fn dockerfile(build: &Build, folder: Option<&Path>, around: &Surroundings) -> anyhow::Result<DockerfileAt> {
    Ok(match &build.dockerfile {
        bake::DockerfileSource::Inline(text) => DockerfileAt::Here(DockerfileText {
            name: "Dockerfile".to_owned(),
            data: text.clone().into_bytes(),
            ignore: ignore_file(folder, None)?,
        }),
        bake::DockerfileSource::Local(path) => DockerfileAt::Here(read_dockerfile(Path::new(path), folder, around)?),
        bake::DockerfileSource::InContext(path) => DockerfileAt::InContext(path.clone()),
        bake::DockerfileSource::Url(url) => DockerfileAt::Url(url.clone()),
    })
}

/// Reads a Dockerfile of this machine. As with docker, one called `dockerfile` will do where `Dockerfile` is not there.
fn read_dockerfile(path: &Path, folder: Option<&Path>, around: &Surroundings) -> anyhow::Result<DockerfileText> {
    let mut path = path.to_owned();
    let mut data = std::fs::read(&path);
    if data.is_err() && path.ends_with("Dockerfile") {
        let lower = path.with_file_name("dockerfile");
        if let Ok(found) = std::fs::read(&lower) {
            (path, data) = (lower, Ok(found));
        }
    }
    let shown = path.strip_prefix(&around.working_directory);
    let shown = shown
        .ok()
        .filter(|shown| !shown.as_os_str().is_empty())
        .unwrap_or(&path);
    let shown = shown.display().to_string();
    let data = data.with_context(|| format!("cannot read the Dockerfile `{shown}`"))?;
    Ok(DockerfileText {
        ignore: ignore_file(folder, Some(&path))?,
        name: shown,
        data,
    })
}

/// `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` of the context.
pub(crate) fn ignore_file(folder: Option<&Path>, dockerfile: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let candidates = beside
        .into_iter()
        .chain(folder.map(|folder| folder.join(".dockerignore")));
    for path in candidates {
        match std::fs::read(&path) {
            Ok(data) => return Ok(Some(data)),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err).with_context(|| format!("cannot read `{}`", path.display())),
        }
    }
    Ok(None)
}

/// The outputs; without any, the result is kept in the store.
fn outputs(given: &[bake::Output], names: usize) -> anyhow::Result<Vec<Output>> {
    let mut outputs = Vec::new();
    for output in given {
        let mut attrs = output.attributes.clone();
        attrs.insert("type".to_owned(), output.kind.clone());
        if !output.destination.is_empty() {
            attrs.insert("dest".to_owned(), output.destination.clone());
        }
        let output = Output::from_attrs(&format!("type={}", output.kind), attrs)?;
        // Before anything is built.
        output.check(names)?;
        outputs.push(output);
    }
    if outputs.is_empty() {
        outputs.push(Output {
            kind: OutputKind::Image,
            dest: None,
            attrs: BTreeMap::new(),
        });
    }
    Ok(outputs)
}

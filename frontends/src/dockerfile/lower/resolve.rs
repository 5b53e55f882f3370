//! Base images and named contexts: asking for their configs, and making nodes of the answers.

use std::collections::{BTreeMap, BTreeSet};

use cbs_image::config::{ContainerConfig, ImageConfig};
use cbs_image::platform::Platform;
use cbs_image::reference::Reference;
use cbs_solver::patterns::parse_ignore_file;
use cbs_solver::pb;
use cbs_store::Sha256Digest;
use futures_util::future::join_all;

use super::super::go::quote;
use super::super::lint::check_base_platform;
use super::super::options::NamedContext;
use super::super::resolver::{ImageRequest, ImageStore, ResolveMode};
use super::super::source::Complaint;
use super::context::git_source;
use super::env::split_pair;
use super::graph::{LocalSource, NodeId, NodeOp, named};
use super::questions::Questions;
use super::stages::SCRATCH;
use super::state::{BaseImage, StageId, StageKind, StageState};
use super::{Convert, platform_of};

/// Where a stage without PATH looks for programs.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage turned out to be built on.
#[derive(Default)]
struct Loaded {
    source: LoadedSource,
    /// What step names say.
    name: String,
    reference: Option<Reference>,
    digest: Option<Sha256Digest>,
    config: Option<ImageConfig>,
    origin: Origin,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Origin {
    #[default]
    Scratch,
    /// An image that FROM or --from names itself; getting it is a step of the stage.
    Image,
    /// A named context.
    Context,
}

#[derive(Default)]
enum LoadedSource {
    #[default]
    Empty,
    Source {
        source: pb::SourceOp,
        platform: Option<Platform>,
    },
    Local(LocalSource),
    Input(pb::Definition),
}

/// A question in flight.
enum Question {
    Answered(Box<Loaded>),
    Image(Box<ImageQuestion>),
    Local {
        name: String,
        key: String,
        shared_key: String,
        session: Option<String>,
    },
}

struct ImageQuestion {
    request: ImageRequest,
    /// What the file or the option says.
    origin: String,
    /// The key of the named context that asks.
    context: Option<String>,
    /// The layout that holds the image, and the name it goes by.
    layout: Option<(String, Reference)>,
}

impl<'a> Convert<'a> {
    /// Resolves the bases of stages that have none in the file. Complaints are noted.
    pub(super) async fn resolve_bases(&mut self, reachable: &BTreeSet<StageId>) {
        let mut questions = Vec::new();
        for index in 0..self.stages.len() {
            let id = StageId(index);
            if self.stages[index].base.is_some() || self.stages[index].resolved {
                continue;
            }
            let question = self.question(id, reachable.contains(&id));
            let stage = &mut self.stages[index];
            stage.resolved = reachable.contains(&id);
            let head = stage.head.clone();
            let question = question.map_err(|complaint| complaint.at(head.span).on(head.lines));
            questions.extend(self.note(question).flatten().map(|question| (id, question)));
        }
        let resolver = self.input.resolver;
        let answers = questions
            .into_iter()
            .map(|(id, question)| async move { (id, answer(resolver, question).await) });
        for (id, answer) in join_all(answers).await {
            let head = self.stages[id.0].head.clone();
            let located = answer.map_err(|complaint| {
                let hint = self.base_suggestion(&self.stages[id.0].base_name);
                Complaint {
                    message: complaint.message.clone() + &hint,
                    ..complaint
                }
                .at(head.span)
                .on(head.lines)
            });
            if let Some(loaded) = self.note(located) {
                self.apply(id, loaded);
            }
        }
    }

    /// What must be asked for a stage; nothing for one that is not needed, but its base must be well-formed.
    fn question(&self, id: StageId, needed: bool) -> Result<Option<Question>, Complaint> {
        let stage = &self.stages[id.0];
        if stage.base_name == SCRATCH && stage.replaced_by.is_none() {
            return Ok(needed.then(|| Question::Answered(Box::default())));
        }
        let name = &stage.base_name;
        let reference: Reference = name
            .parse()
            .map_err(|error| Complaint::new(format!("failed to parse stage name {}: {error}", quote(name))))?;
        if !needed {
            return Ok(None);
        }
        let platform = stage.platform_or(&self.target).clone();
        let context = match &stage.replaced_by {
            Some((key, context)) => Some((key.clone(), *context)),
            None => self.find_context(&reference.clone().with_default_tag().to_string(), &platform),
        };
        if let Some((key, context)) = context {
            return self.context_question(&key, context, platform).map(Some);
        }
        let reference = reference.with_default_tag();
        let prefix = if self.prefixes_platform() {
            format!("{platform} ")
        } else {
            String::new()
        };
        let label = format!("[{prefix}internal] load metadata for {reference}");
        let mode = self.input.options.resolve_mode;
        let request = ImageRequest {
            reference,
            platform,
            mode,
            store: ImageStore::Registry,
            label,
        };
        Ok(Some(Question::Image(Box::new(ImageQuestion {
            request,
            origin: name.clone(),
            context: None,
            layout: None,
        }))))
    }

    fn context_question(&self, key: &str, context: &NamedContext, platform: Platform) -> Result<Question, Complaint> {
        let step = |text: &str| format!("[context {key}] {text}");
        let parse = |text: &str| {
            let bad = |error| Complaint::new(format!("named context {key}: {error}"));
            text.parse::<Reference>().map_err(bad)
        };
        let answered = |source: LoadedSource, name: String| {
            Question::Answered(Box::new(Loaded {
                source,
                name,
                origin: Origin::Context,
                ..Loaded::default()
            }))
        };
        let mode = self.input.options.resolve_mode;
        Ok(match context {
            NamedContext::Image { reference } if reference == SCRATCH => answered(LoadedSource::Empty, String::new()),
            NamedContext::Image { reference: written } => {
                let reference = parse(written)?.with_default_tag();
                let label = step(&format!("load metadata for {reference}"));
                let request = ImageRequest {
                    reference,
                    platform,
                    mode,
                    store: ImageStore::Registry,
                    label,
                };
                Question::Image(Box::new(ImageQuestion {
                    request,
                    origin: written.clone(),
                    context: Some(key.to_owned()),
                    layout: None,
                }))
            }
            NamedContext::OciLayout { store, digest, tag } => {
                // The name in the reference means nothing; it is what messages show.
                let name = key.split("::").next().unwrap_or(key);
                let mut reference = parse(name)?;
                if let Some(digest) = digest {
                    let digest = Sha256Digest::parse_oci(digest)
                        .map_err(|error| Complaint::new(format!("named context {key}: {error}")))?;
                    reference = reference.with_digest(digest);
                }
                let tag = if digest.is_some() { None } else { tag.clone() };
                let label = step(&format!("load metadata for {reference}"));
                let layout = Some((store.clone(), reference.clone()));
                let kept = ImageStore::OciLayout {
                    store: store.clone(),
                    tag,
                };
                let request = ImageRequest {
                    reference,
                    platform,
                    mode,
                    store: kept,
                    label,
                };
                Question::Image(Box::new(ImageQuestion {
                    request,
                    origin: store.clone(),
                    context: Some(key.to_owned()),
                    layout,
                }))
            }
            NamedContext::Local { name, shared_key } => {
                let session = self.input.options.local_sessions.get(name).cloned();
                Question::Local {
                    name: name.clone(),
                    key: key.to_owned(),
                    shared_key: shared_key.clone(),
                    session,
                }
            }
            NamedContext::Url { url } => {
                let git = git_source(url, None, None)
                    .map_err(|error| Complaint::new(format!("named context {key}: {error}")))?;
                match git {
                    Some(source) => answered(
                        LoadedSource::Source { source, platform: None },
                        format!("[internal] load git source {url}"),
                    ),
                    None if url.starts_with("http://") || url.starts_with("https://") => {
                        let attrs = BTreeMap::from([("http.filename".to_owned(), "context".to_owned())]);
                        let source = pb::SourceOp {
                            identifier: url.clone(),
                            attrs,
                        };
                        answered(LoadedSource::Source { source, platform: None }, step(url))
                    }
                    None => return Err(Complaint::new(format!("invalid git context {url}"))),
                }
            }
            NamedContext::Input { definition, config } => {
                let config = config
                    .as_deref()
                    .map(read_config)
                    .transpose()
                    .map_err(|error| Complaint::new(format!("failed to parse image config for {key}: {error}")))?;
                let source = LoadedSource::Input(definition.clone());
                Question::Answered(Box::new(Loaded {
                    source,
                    config,
                    origin: Origin::Context,
                    ..Loaded::default()
                }))
            }
        })
    }

    /// Gives a stage the tree and the config it starts from.
    fn apply(&mut self, id: StageId, loaded: Loaded) {
        let mut stage = std::mem::take(&mut self.stages[id.0]);
        // Scratch is for the target platform, whatever FROM says.
        let wanted = if loaded.origin == Origin::Scratch {
            &self.target
        } else {
            stage.platform_or(&self.target)
        };
        let mut platform = wanted.clone();
        let mut source = loaded.source;
        let config = match loaded.config {
            Some(config) => {
                let found = platform_of(&config);
                match loaded.origin {
                    Origin::Image => {
                        let lines = stage.head.lines;
                        check_base_platform(&stage.base_name, &platform, &found, lines, &mut self.linter);
                    }
                    _ if stage.replaced_by.is_some() => platform = found.normalized(),
                    _ => {}
                }
                // An image of no layers is the empty tree, and nothing is pulled for it.
                if matches!(source, LoadedSource::Source { .. }) && has_no_layers(&config) {
                    source = LoadedSource::Empty;
                }
                let (reference, digest) = (loaded.reference, loaded.digest);
                stage.base_image = Some(BaseImage {
                    reference,
                    digest,
                    config: config.clone(),
                });
                config
            }
            None => empty_image(&platform),
        };
        stage.platform = Some(platform);
        stage.root = match source {
            LoadedSource::Empty => None,
            LoadedSource::Source { source, platform } if loaded.origin == Origin::Image => {
                let mut metadata = named(self.step_name(&mut stage, &loaded.name));
                metadata
                    .description
                    .insert("com.docker.dockerfile.v1.command".to_owned(), stage.head.code.clone());
                Some(
                    self.graph
                        .add(NodeOp::Source { source, platform }, metadata, Some(stage.head.lines)),
                )
            }
            LoadedSource::Source { source, platform } => Some(self.graph.add(
                NodeOp::Source { source, platform },
                named(loaded.name),
                None,
            )),
            LoadedSource::Local(local) => {
                let node = self.graph.add(NodeOp::Local(local), named(loaded.name), None);
                self.locals.push((node, id));
                Some(node)
            }
            LoadedSource::Input(definition) => self.input_node(definition),
        };
        stage.image = ImageConfig {
            created: None,
            ..config
        };
        if stage.replaced_by.is_some() {
            // The stage's own instructions are not run, nor are triggers; its children start from this environment.
            stage.image.config.on_build.clear();
            for pair in &stage.image.config.env {
                let (name, value) = split_pair(pair);
                stage.env.set(name, value);
            }
        }
        stage.dispatched = stage.kind == StageKind::External || stage.replaced_by.is_some();
        self.stages[id.0] = stage;
    }

    pub(super) fn input_node(&mut self, definition: pb::Definition) -> Option<NodeId> {
        let is_empty = definition.def.is_empty();
        (!is_empty).then(|| {
            self.graph
                .add(NodeOp::Input(Box::new(definition)), pb::OpMetadata::default(), None)
        })
    }
}

async fn answer(resolver: &dyn Questions, question: Question) -> Result<Loaded, Complaint> {
    match question {
        Question::Answered(loaded) => Ok(*loaded),
        Question::Image(question) => {
            let ImageQuestion {
                request,
                origin,
                context,
                layout,
            } = *question;
            let (asked, platform, mode) = (request.reference.clone(), request.platform.clone(), request.mode);
            let found = resolver.image(request).await;
            let found = found.map_err(|error| Complaint::new(format!("{origin}: {}", error.chain())))?;
            let config = read_config(&found.config)
                .map_err(|error| Complaint::new(format!("{origin}: failed to parse image config: {error}")))?;
            let pinned = match &found.digest {
                Some(digest) => found.reference.clone().with_digest(*digest),
                None => found.reference.clone(),
            };
            let (source, reference, name) = match (&context, layout) {
                (Some(key), Some((store, dummy))) => {
                    let dummy = found.digest.into_iter().fold(dummy, Reference::with_digest);
                    let attrs = BTreeMap::from([("oci.store".to_owned(), store)]);
                    let source = pb::SourceOp {
                        identifier: format!("oci-layout://{dummy}"),
                        attrs,
                    };
                    (source, dummy, format!("[context {key}] OCI load from client"))
                }
                (Some(key), None) => (image_source(&pinned, mode), pinned, format!("[context {key}] {asked}")),
                (None, _) => {
                    let name = format!("FROM {pinned}");
                    (image_source(&pinned, mode), pinned, name)
                }
            };
            Ok(Loaded {
                source: LoadedSource::Source {
                    source,
                    platform: Some(platform),
                },
                name,
                reference: Some(reference),
                digest: found.digest,
                config: Some(config),
                origin: if context.is_none() {
                    Origin::Image
                } else {
                    Origin::Context
                },
            })
        }
        Question::Local {
            name,
            key,
            shared_key,
            session,
        } => {
            let ignore = resolver.ignore_file(&name).await;
            let ignore = ignore.map_err(|error| Complaint::new(format!("named context {key}: {}", error.chain())))?;
            let local = LocalSource {
                shared_key_hint: format!("context:{key}-{shared_key}"),
                exclude: ignore.map(|bytes| parse_ignore_file(&bytes)).unwrap_or_default(),
                name,
                session,
                paths: BTreeSet::new(),
            };
            let name = format!("[context {key}] load from client");
            Ok(Loaded {
                source: LoadedSource::Local(local),
                name,
                origin: Origin::Context,
                ..Loaded::default()
            })
        }
    }
}

fn image_source(reference: &Reference, mode: ResolveMode) -> pb::SourceOp {
    let mut attrs = BTreeMap::new();
    if mode != ResolveMode::Default {
        attrs.insert("image.resolvemode".to_owned(), mode.as_str().to_owned());
    }
    pb::SourceOp {
        identifier: format!("docker-image://{reference}"),
        attrs,
    }
}

/// A base image's config. What BuildKit does not know of it is not inherited, and so not here either.
fn read_config(bytes: &[u8]) -> Result<ImageConfig, serde_json::Error> {
    let mut config = ImageConfig::from_slice(bytes)?;
    config.extra.clear();
    config.config.extra.clear();
    Ok(config)
}

/// Old manifests name no layers in the config, but their history counts them.
fn has_no_layers(config: &ImageConfig) -> bool {
    config.rootfs.diff_ids.is_empty() && config.history.iter().all(|entry| entry.empty_layer)
}

fn empty_image(platform: &Platform) -> ImageConfig {
    let env = if platform.os == "windows" {
        Vec::new()
    } else {
        vec![format!("PATH={DEFAULT_PATH}")]
    };
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
        config: ContainerConfig {
            env,
            working_dir: "/".to_owned(),
            ..ContainerConfig::default()
        },
        ..ImageConfig::default()
    }
}

/// Gives a stage a PATH when its base has none; Windows is left to itself.
pub(super) fn ensure_path(stage: &mut StageState<'_>, platform: &Platform) {
    let config = &mut stage.image.config;
    let has_path = config.env.iter().any(|pair| split_pair(pair).0 == "PATH");
    if !has_path && platform.os != "windows" {
        config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
}

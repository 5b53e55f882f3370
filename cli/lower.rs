//! From targets to definitions: remote Dockerfiles are fetched, then every target is lowered, those that others are
//! built on first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cbs_frontends::dockerfile::{
    BuildOptions, DockerfileInput, LintWarning, MainContext, MetaResolver, NamedContext, context_source, lower,
};
use cbs_image::config::ImageConfig;
use cbs_image::platform::Platform;
use cbs_solver::{Ctx, EventSender, OnFailure, pb};
use futures_util::future::{join_all, try_join_all};

use crate::epoch::Epoch;
use crate::progress::Task;
use crate::remote;
use crate::target::{BuildTarget, DockerfileAt, DockerfileText, Work};

/// A lowered target.
#[derive(Clone, Debug)]
pub(crate) struct LoweredTarget {
    /// In the order asked for.
    pub(crate) platforms: Vec<LoweredPlatform>,
    /// Whether the image is an index even of one platform.
    pub(crate) index: bool,
    /// The time of its exports.
    pub(crate) epoch: Epoch,
    /// What lint found.
    pub(crate) warnings: Vec<LintWarning>,
}

/// One platform of it.
#[derive(Clone, Debug)]
pub(crate) struct LoweredPlatform {
    /// What it runs on.
    pub(crate) platform: Platform,
    /// What makes it.
    pub(crate) definition: pb::Definition,
    /// Its config before export.
    pub(crate) config: ImageConfig,
    /// The config of its base.
    pub(crate) base: Option<ImageConfig>,
}

/// Fetches the Dockerfiles that are not here yet.
pub(crate) async fn fetch_dockerfiles(
    targets: &mut [BuildTarget],
    ctx: &Ctx,
    store: &cbs_store::Store,
) -> anyhow::Result<()> {
    for target in targets {
        let Work::Dockerfile { file, options } = &mut target.work else {
            continue;
        };
        let text = match &*file {
            DockerfileAt::Here(_) => {
                remote::settle_context(options, ctx, store).await?;
                continue;
            }
            // Its target says so when it is lowered.
            DockerfileAt::Unreadable(_) => continue,
            DockerfileAt::InContext(path) => remote::dockerfile_of_context(options, path, ctx, store).await,
            DockerfileAt::Url(url) => remote::dockerfile_of_url(url, ctx, store).await,
        };
        let text = text.with_context(|| format!("target `{}`", target.name))?;
        *file = DockerfileAt::Here(text);
    }
    Ok(())
}

/// What lowering came to.
#[derive(Debug, Default)]
pub(crate) struct Lowering {
    /// By name.
    pub(crate) done: HashMap<String, Arc<LoweredTarget>>,
    /// Why the others are not there, when the build goes on without them.
    pub(crate) broken: Vec<anyhow::Error>,
}

/// Lowers all targets. Those that cannot be, and those built on them, are left out when failures do not stop the build.
pub(crate) async fn lower_all<'t>(
    targets: &'t [BuildTarget],
    resolver: &dyn MetaResolver,
    events: &EventSender,
    on_failure: OnFailure,
) -> anyhow::Result<Lowering> {
    let mut done: HashMap<String, Arc<LoweredTarget>> = HashMap::new();
    let (mut broken, mut broken_names) = (Vec::new(), HashSet::new());
    let mut waiting: Vec<&BuildTarget> = targets.iter().collect();
    while !waiting.is_empty() {
        let is_ready = |target: &&BuildTarget| target.linked.values().all(|name| done.contains_key(name));
        let (ready, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_ready);
        if ready.is_empty() {
            // Whatever is left leads to a broken one, or in a circle.
            let needs_broken = |name: &String| broken_names.contains(name);
            let mut lost = later.iter().filter(|target| target.linked.values().any(needs_broken));
            if let Some(target) = lost.next().map(|target| target.name.clone()) {
                waiting = later;
                waiting.retain(|other| other.name != target);
                broken_names.insert(target);
                continue;
            }
            let names: Vec<&str> = later.iter().map(|target| target.name.as_str()).collect();
            bail!("targets use each other's results in a circle: {}", names.join(", "));
        }
        let count = targets.len();
        let lower = |target: &&'t BuildTarget| lower_one(target, count, &done, (resolver, events));
        let lowered = match on_failure {
            OnFailure::Stop => {
                let lowered = try_join_all(ready.iter().map(lower)).await?;
                lowered.into_iter().map(Ok).collect()
            }
            OnFailure::KeepGoing => join_all(ready.iter().map(lower)).await,
        };
        for (target, lowered) in ready.iter().zip(lowered) {
            match lowered {
                Ok(lowered) => drop(done.insert(target.name.clone(), Arc::new(lowered))),
                Err(err) => {
                    broken_names.insert(target.name.clone());
                    broken.push(err);
                }
            }
        }
        waiting = later;
    }
    Ok(Lowering { done, broken })
}

/// What people see while the Dockerfile of one of `count` targets is read.
pub(crate) fn definition_task(target: &BuildTarget, count: usize, file: &str) -> String {
    match count {
        1 => format!("[internal] load build definition from {file}"),
        _ => format!("[{}] [internal] load build definition from {file}", target.name),
    }
}

async fn lower_one(
    target: &BuildTarget,
    count: usize,
    done: &HashMap<String, Arc<LoweredTarget>>,
    (resolver, events): (&dyn MetaResolver, &EventSender),
) -> anyhow::Result<LoweredTarget> {
    let (file, options) = match &target.work {
        Work::Dockerfile { file, options } => (file, options),
        Work::Definition { definition, platform } => {
            return Ok(LoweredTarget {
                platforms: vec![LoweredPlatform {
                    platform: platform.clone(),
                    definition: definition.clone(),
                    config: plain_config(platform),
                    base: None,
                }],
                index: false,
                epoch: Epoch::choose(None, None, None),
                warnings: Vec::new(),
            });
        }
    };
    let text = text_of(file)?;
    let options = with_linked(target, options, done)?;
    let task = Task::begin(events, &definition_task(target, count, &text.name));
    task.end(None);
    let input = input(text);
    let lowered = lower(&input, &options, resolver).await;
    // Of several targets, the one that is wrong is named.
    let lowered = match lowered {
        Err(err) if count > 1 => Err(anyhow::Error::from(err).context(format!("target `{}`", target.name))),
        lowered => lowered.map_err(Into::into),
    }?;
    let folder = target.folder.clone();
    let given = lowered.epoch;
    let mut remote = None;
    if given.is_none()
        && let Some(source) = remote_source(&options)?
    {
        let time = resolver.source_time(source).await;
        remote = time.with_context(|| format!("target `{}`: the time of its context", target.name))?;
    }
    let epoch = tokio::task::spawn_blocking(move || Epoch::choose(given, remote, folder.as_deref())).await?;
    Ok(LoweredTarget {
        platforms: lowered
            .platforms
            .into_iter()
            .map(|result| LoweredPlatform {
                platform: result.platform,
                definition: result.definition,
                config: result.config,
                base: result.base.map(|base| base.config),
            })
            .collect(),
        index: lowered.index,
        epoch,
        warnings: lowered.warnings,
    })
}

/// The source of a main context that is elsewhere: its time is that of the image.
fn remote_source(options: &BuildOptions) -> anyhow::Result<Option<pb::SourceOp>> {
    let is_remote = matches!(
        options.context,
        MainContext::Git { .. } | MainContext::HttpArchive { .. } | MainContext::HttpFile { .. }
    );
    if !is_remote {
        return Ok(None);
    }
    Ok(context_source(options)?)
}

/// The text of a fetched Dockerfile.
pub(crate) fn text_of(file: &DockerfileAt) -> anyhow::Result<&DockerfileText> {
    match file {
        DockerfileAt::Here(text) => Ok(text),
        DockerfileAt::InContext(path) => bail!("the Dockerfile `{path}` was not fetched"),
        DockerfileAt::Url(url) => bail!("the Dockerfile {url} was not fetched"),
        DockerfileAt::Unreadable(why) => bail!("{why}"),
    }
}

/// A Dockerfile as the frontend takes it.
pub(crate) fn input(text: &DockerfileText) -> DockerfileInput<'_> {
    DockerfileInput {
        name: &text.name,
        data: &text.data,
        ignore_file: text.ignore.as_deref(),
    }
}

/// The options with the results of the targets that this one is built on.
pub(crate) fn with_linked(
    target: &BuildTarget,
    options: &BuildOptions,
    done: &HashMap<String, Arc<LoweredTarget>>,
) -> anyhow::Result<BuildOptions> {
    let mut options = options.clone();
    for (name, linked) in &target.linked {
        let Some(lowered) = done.get(linked) else { continue };
        let is_only = lowered.platforms.len() == 1;
        for result in &lowered.platforms {
            let context = NamedContext::Input {
                definition: result.definition.clone(),
                config: Some(result.config.to_vec().context("image config")?),
            };
            let key = if is_only {
                name.clone()
            } else {
                format!("{name}::{}", result.platform)
            };
            options.contexts.insert(key, context);
        }
    }
    Ok(options)
}

/// The config of a result that nobody says anything about; as BuildKit's.
fn plain_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..ImageConfig::default()
    };
    config.config.working_dir = "/".to_owned();
    config.config.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    config
}

/// The results as requests of one graph: the name people see, and the definition.
pub(crate) fn requests(
    targets: &[BuildTarget],
    lowered: &HashMap<String, Arc<LoweredTarget>>,
) -> BTreeMap<usize, Vec<cbs_solver::Request>> {
    let mut requests = BTreeMap::new();
    for (number, target) in targets.iter().enumerate().filter(|(_, target)| !target.only_linked) {
        let Some(lowered) = lowered.get(&target.name) else {
            continue;
        };
        let is_only = lowered.platforms.len() == 1;
        let of_target = lowered.platforms.iter().map(|result| cbs_solver::Request {
            name: if is_only {
                target.name.clone()
            } else {
                format!("{} {}", target.name, result.platform)
            },
            definition: result.definition.clone(),
        });
        requests.insert(number, of_target.collect());
    }
    requests
}

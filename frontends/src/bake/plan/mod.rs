//! From a resolved target to what a build of it needs: paths sorted out, texts parsed, and everything checked that
//! can be checked without building.

mod annotations;
mod limits;
mod outputs;
mod session;

use std::collections::BTreeMap;

use cbs_image::platform::Platform;

pub use self::annotations::{Annotation, AnnotationKind};
pub use self::limits::Ulimit;
pub use self::session::{SecretSource, SecretValue, SshForward, SshSource, read_session};

use super::entries::{Attestation, CacheEntry, Output, Policy};
use super::error::BakeError;
use super::host::Host;
use super::model::Target;
use super::options::{BakeOptions, Call};
use super::paths::{clean, join, resolve};
use super::remote::{RemoteInput, is_remote_url, with_subdir};
use crate::dockerfile::{NoCache, Resources};

/// One build, ready to be handed to the frontend for Dockerfiles and to the exporters.
#[derive(Clone, Debug, PartialEq)]
pub struct Build {
    /// The name of the target.
    pub name: String,
    /// Where the files of the build come from.
    pub context: Context,
    /// Further contexts by name.
    pub contexts: BTreeMap<String, Context>,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Image labels.
    pub labels: BTreeMap<String, String>,
    /// Names of the resulting image. They are not checked.
    pub tags: Vec<String>,
    /// The stage to build; the last one by default.
    pub stage: Option<String>,
    /// Platforms to build for; empty for that of the builder.
    pub platforms: Vec<Platform>,
    /// Where caches are imported from.
    pub cache_from: Vec<CacheEntry>,
    /// Where the cache is exported to.
    pub cache_to: Vec<CacheEntry>,
    /// What becomes of the result. Destinations are absolute, `-` is stdout, and `registry` is `image` with `push`.
    pub outputs: Vec<Output>,
    /// Secrets that steps may ask for.
    pub secrets: Vec<SecretSource>,
    /// SSH agents that steps may ask for.
    pub ssh: Vec<SshForward>,
    /// What must be built anew.
    pub no_cache: NoCache,
    /// Whether base images are looked up again.
    pub pull: bool,
    /// The network mode of steps; `None` for the default.
    pub network: Option<String>,
    /// Annotations of manifests and indexes.
    pub annotations: Vec<Annotation>,
    /// Provenance and SBOM.
    pub attestations: Vec<Attestation>,
    /// The size of `/dev/shm` in bytes; zero for the default.
    pub shm_size: i64,
    /// Limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Host names and addresses.
    pub extra_hosts: BTreeMap<String, String>,
    /// Privileges that steps ask for.
    pub entitlements: Vec<String>,
    /// Memory and CPU limits.
    pub resources: Resources,
    /// What to do instead of building.
    pub call: Option<Call>,
    /// Source policies.
    pub policies: Vec<Policy>,
    /// Whether nobody asked for it but another target that uses its result.
    pub linked: bool,
}

impl Build {
    /// The targets whose results this one uses. They come earlier in [`super::Bake::builds`].
    pub fn linked_targets(&self) -> impl Iterator<Item = &str> {
        self.contexts.values().filter_map(|context| match context {
            Context::Target(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Context {
    /// A folder of this machine, as an absolute path.
    Local(String),
    /// A git repository, or something to download.
    Url(String),
    /// A folder within the archive that the definition came from.
    Archive {
        /// Where the archive is.
        url: String,
        /// The folder; empty for the root.
        folder: String,
    },
    /// The result of another target.
    Target(String),
    /// An image in a registry.
    Image(String),
    /// An image in an OCI layout: `path`, `path:tag` or `path@digest`.
    OciLayout(String),
}

/// Where a Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileSource {
    /// In the definition itself.
    Inline(String),
    /// A file of this machine, as an absolute path.
    Local(String),
    /// A path within the context, which is not on this machine.
    InContext(String),
    /// Something to download.
    Url(String),
}

/// What is around the targets.
pub(crate) struct Surroundings<'a> {
    pub(crate) options: &'a BakeOptions,
    pub(crate) host: &'a dyn Host,
    pub(crate) remote: Option<&'a RemoteInput>,
}

impl Surroundings<'_> {
    /// Checks a target. Its context becomes the one it is printed with.
    ///
    /// # Errors
    /// [`BakeError::Target`] for the first attribute that makes no sense.
    pub(crate) fn plan(&self, target: &mut Target) -> Result<Build, BakeError> {
        let name = target.name.clone();
        let fail = |attribute: &'static str| {
            let target = name.clone();
            move |reason: String| BakeError::Target {
                target,
                attribute,
                reason,
            }
        };
        for (attribute, value) in [("context", &target.context), ("dockerfile", &target.dockerfile)] {
            if value.as_deref() == Some("-") {
                return Err(fail(attribute)(format!(
                    "a {attribute} from stdin is not allowed in bake"
                )));
            }
        }
        let (context, printed) = self.main_context(target.context.as_deref().unwrap_or("."));
        let dockerfile = self.dockerfile(target, &context).map_err(fail("dockerfile"))?;
        target.context = Some(printed);
        let contexts = target
            .contexts
            .iter()
            .map(|(name, text)| (name.clone(), self.named_context(text)))
            .collect();
        let platforms = limits::platforms(
            target.platforms.as_deref().unwrap_or_default(),
            &self.options.local_platform,
        );
        let secrets = self.secrets(target, &context).map_err(fail("secret"))?;
        let ssh = self.ssh(target, &context).map_err(fail("ssh"))?;
        let outputs = self
            .outputs(target.outputs.as_deref_mut().unwrap_or_default())
            .map_err(fail("output"))?;
        let no_cache = match (target.no_cache, target.no_cache_filter.is_empty()) {
            (Some(true), _) => NoCache::All,
            (_, true) => NoCache::Off,
            (_, false) => NoCache::Stages(target.no_cache_filter.clone()),
        };
        Ok(Build {
            context,
            contexts,
            dockerfile,
            args: target.args.clone(),
            labels: target.labels.clone(),
            tags: target.tags.clone().unwrap_or_default(),
            stage: target.target.clone().filter(|stage| !stage.is_empty()),
            platforms: platforms.map_err(fail("platforms"))?,
            cache_from: self.local_caches(&target.cache_from, "src"),
            cache_to: self.local_caches(target.cache_to.as_deref().unwrap_or_default(), "dest"),
            outputs,
            secrets,
            ssh,
            no_cache,
            pull: target.pull == Some(true),
            network: target.network.clone().filter(|network| !network.is_empty()),
            annotations: annotations::parse_all(&target.annotations).map_err(fail("annotations"))?,
            attestations: target.attest.clone(),
            shm_size: limits::size(target.shm_size.as_deref(), "shm-size").map_err(fail("shm-size"))?,
            ulimits: limits::ulimits(&target.ulimits).map_err(fail("ulimits"))?,
            extra_hosts: target.extra_hosts.clone(),
            entitlements: target.entitlements.clone(),
            resources: limits::resources(target.resources.as_ref()).map_err(fail("resources"))?,
            call: self.call(target)?,
            policies: target.policy.clone(),
            linked: target.linked,
            name,
        })
    }

    fn call(&self, target: &Target) -> Result<Option<Call>, BakeError> {
        let mut call = Call::parse(target.call.as_deref().unwrap_or_default())?;
        // The flag says how answers look, for all targets.
        if let (Some(call), Some(flag)) = (
            &mut call,
            Call::parse(self.options.call.as_deref().unwrap_or_default())?,
        ) {
            call.format = flag.format;
            call.ignore_status = flag.ignore_status;
        }
        Ok(call)
    }

    fn local(&self, path: &str) -> Context {
        Context::Local(resolve(&self.options.working_directory, path))
    }

    /// A context that is no path; those mean the same everywhere.
    fn special(text: &str) -> Option<Context> {
        if let Some(image) = text.strip_prefix("docker-image://") {
            return Some(Context::Image(String::from(image)));
        }
        if let Some(layout) = text.strip_prefix("oci-layout://") {
            return Some(Context::OciLayout(String::from(layout)));
        }
        is_remote_url(text).then(|| Context::Url(String::from(text)))
    }

    /// The context, and how it is printed.
    fn main_context(&self, text: &str) -> (Context, String) {
        if let Some(path) = text.strip_prefix("cwd://") {
            let path = clean(path);
            return (self.local(&path), path);
        }
        if let Some(context) = Surroundings::special(text) {
            return (context, String::from(text));
        }
        let path = clean(text);
        match self.remote {
            Some(RemoteInput::Git { url }) => {
                let url = with_subdir(url, &path);
                (Context::Url(url.clone()), url)
            }
            Some(RemoteInput::Archive { url }) => (archive(url, &path), path),
            Some(RemoteInput::File { .. }) | None => (self.local(&path), path),
        }
    }

    fn named_context(&self, text: &str) -> Context {
        if let Some(name) = text.strip_prefix("target:") {
            return Context::Target(String::from(name));
        }
        if let Some(path) = text.strip_prefix("cwd://") {
            return self.local(&clean(path));
        }
        if let Some(context) = Surroundings::special(text) {
            return context;
        }
        match self.remote {
            Some(RemoteInput::Git { url }) => Context::Url(with_subdir(url, text)),
            Some(RemoteInput::Archive { url }) => archive(url, text),
            Some(RemoteInput::File { .. }) | None => self.local(text),
        }
    }

    fn dockerfile(&self, target: &Target, context: &Context) -> Result<DockerfileSource, String> {
        let text = target.dockerfile.as_deref().unwrap_or("Dockerfile");
        if let Some(inline) = target.dockerfile_inline.as_deref().filter(|inline| !inline.is_empty()) {
            return Ok(DockerfileSource::Inline(String::from(inline)));
        }
        let absolute = |path: &str| DockerfileSource::Local(resolve(&self.options.working_directory, path));
        if let Some(path) = text.strip_prefix("cwd://") {
            return Ok(absolute(&clean(path)));
        }
        if is_remote_url(text) {
            return Ok(DockerfileSource::Url(String::from(text)));
        }
        let path = clean(text);
        let Context::Local(folder) = context else {
            // Seen from the root of the context, `..` leads nowhere else.
            return Ok(DockerfileSource::InContext(String::from(
                clean(&format!("/{path}")).trim_start_matches('/'),
            )));
        };
        let local = resolve(folder, &path);
        let is_of_remote = matches!(self.remote, Some(RemoteInput::Git { .. } | RemoteInput::Archive { .. }));
        if is_of_remote && self.host.kind(&local).is_ok() {
            // It is not clear which of the two is meant: the local one, or that beside the remote definition.
            return Err(String::from(
                "a dockerfile of a remote definition cannot be used with a local context; write cwd:// in front of it \
                 for the local one",
            ));
        }
        Ok(DockerfileSource::Local(local))
    }

    /// Caches in local folders get absolute paths.
    fn local_caches(&self, caches: &[CacheEntry], key: &str) -> Vec<CacheEntry> {
        let mut caches = caches.to_vec();
        for cache in caches.iter_mut().filter(|cache| cache.kind == "local") {
            if let Some(path) = cache.attributes.get_mut(key) {
                *path = resolve(&self.options.working_directory, path);
            }
        }
        caches
    }
}

fn archive(url: &str, path: &str) -> Context {
    let folder = join("/", path);
    Context::Archive {
        url: String::from(url),
        folder: String::from(folder.trim_start_matches('/')),
    }
}

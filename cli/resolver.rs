//! Answers what lowering asks: configs of base images, ignore files, times of sources.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cbs_exec::Pins;
use cbs_frontends::dockerfile::{ImageRequest, ImageStore, MetaResolver, ResolveError, ResolveMode, ResolvedImage};
use cbs_image::ImageError;
use cbs_image::reference::Reference;
use cbs_image::registry::RegistryErrorKind;
use cbs_image::source::{Freshness, ImageSource};
use cbs_image::time::parse_rfc3339;
use cbs_solver::{BoxFuture, Ctx, EventSender, pb};
use cbs_store::Sha256Digest;
use tokio::sync::OnceCell;

use crate::epoch::commit_time;
use crate::failure::chain;
use crate::progress::Task;
use crate::source_time;

/// The answers of one command; each image is asked for once, however many targets use it.
pub(crate) struct Resolver {
    /// Gives images.
    pub(crate) images: ImageSource,
    /// Folders behind `local://NAME`.
    pub(crate) locals: BTreeMap<String, PathBuf>,
    /// Layouts by name.
    pub(crate) layouts: BTreeMap<String, PathBuf>,
    /// Hears about the questions.
    pub(crate) events: EventSender,
    /// What images are held to.
    pub(crate) pins: Arc<Pins>,
    /// Fetches what has a time.
    pub(crate) ctx: Ctx,
    /// Answers so far.
    pub(crate) known: Mutex<HashMap<String, Arc<OnceCell<ResolvedImage>>>>,
}

impl Resolver {
    async fn ask(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let found = match &request.store {
            ImageStore::Registry => self.ask_registry(request).await?,
            ImageStore::OciLayout { store, tag } => {
                let path = self.layouts.get(store).cloned().unwrap_or_else(|| PathBuf::from(store));
                let digest = request.reference.digest().copied();
                let found = self.images.resolve_layout(path, tag.clone(), digest, &request.platform);
                found
                    .await
                    .map_err(|err| unanswered(&request.reference.to_string(), err))?
            }
        };
        Ok(ResolvedImage {
            reference: request.reference.clone(),
            digest: Some(found.digest),
            config: found.config,
        })
    }

    /// A tag is looked up at its registry each time, so that one that moved is seen. A registry that cannot be reached
    /// is no reason not to build with what is known, unless the user insists.
    ///
    /// A tag that is locked is not looked up: its image is the one it had then.
    async fn ask_registry(&self, request: &ImageRequest) -> Result<cbs_image::source::ResolvedImage, ResolveError> {
        let subject = request.reference.to_string();
        let failed = |err: ImageError| unanswered(&subject, err);
        if request.reference.digest().is_some() {
            return self.ask_tag(&request.reference, request).await.map_err(failed);
        }
        let name = format!("docker-image://{subject}");
        let held = self.pins.held(&name).map_err(|err| unanswered(&subject, err))?;
        let reference = match held {
            Some(pin) => {
                let digest = Sha256Digest::parse_oci(&pin);
                let digest =
                    digest.map_err(|_| unanswered(&subject, format!("`{pin}` is no digest; lock it again")))?;
                request.reference.clone().with_digest(digest)
            }
            None => request.reference.clone(),
        };
        let found = self.ask_tag(&reference, request).await.map_err(failed)?;
        self.pins.note(&name, found.digest.oci());
        Ok(found)
    }

    async fn ask_tag(
        &self,
        reference: &Reference,
        request: &ImageRequest,
    ) -> Result<cbs_image::source::ResolvedImage, ImageError> {
        let platform = &request.platform;
        let freshness = match request.mode {
            ResolveMode::Default | ResolveMode::Pull => Freshness::Current,
            ResolveMode::Local => Freshness::Known,
        };
        match self.images.resolve(reference, platform, freshness).await {
            Err(ImageError::Registry(error))
                if request.mode == ResolveMode::Default && is_about_the_way(&error.kind) =>
            {
                let failure = ImageError::Registry(error);
                let offline = self.images.resolve(reference, platform, Freshness::Known).await;
                if offline.is_ok() {
                    tell!("warning: using `{reference}` as it was last seen: {}", chain(&failure));
                }
                offline.map_err(|_| failure)
            }
            answer => answer,
        }
    }
}

/// Whether a failure says nothing about the image.
pub(crate) fn is_about_the_way(kind: &RegistryErrorKind) -> bool {
    matches!(
        kind,
        RegistryErrorKind::Connect(_) | RegistryErrorKind::Broken(_) | RegistryErrorKind::TooManyRequests(_)
    )
}

fn unanswered(subject: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ResolveError {
    ResolveError {
        subject: subject.to_owned(),
        source: source.into(),
    }
}

impl MetaResolver for Resolver {
    fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
        Box::pin(async move {
            let key = format!(
                "{} {} {:?} {:?}",
                request.reference, request.platform, request.mode, request.store
            );
            let cell = {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.entry(key).or_default().clone()
            };
            let ask = || async {
                let task = Task::begin(&self.events, &request.label);
                let answer = self.ask(&request).await;
                task.end(answer.as_ref().err().map(|err| chain(err)));
                answer
            };
            cell.get_or_try_init(ask).await.cloned()
        })
    }

    fn ignore_file<'a>(&'a self, local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
        Box::pin(async move {
            let folder = self.locals.get(local).map(PathBuf::as_path);
            crate::target::ignore_file(folder, None).map_err(|err| unanswered(local, err))
        })
    }

    fn source_time(&self, source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
        Box::pin(async move {
            let (scheme, name) = source
                .identifier
                .split_once("://")
                .unwrap_or(("", source.identifier.as_str()));
            match scheme {
                "local" => Ok(self.locals.get(name).and_then(|folder| commit_time(folder))),
                "docker-image" => {
                    let reference = name.parse().map_err(|err| unanswered(name, err))?;
                    let platform = cbs_image::platform::Platform::host();
                    let image = self.images.resolve(&reference, &platform, Freshness::Current).await;
                    let config = image.and_then(|image| image.parsed_config());
                    let config = config.map_err(|err| unanswered(name, err))?;
                    Ok(config
                        .created
                        .as_deref()
                        .and_then(parse_rfc3339)
                        .map(|instant| instant.0))
                }
                "git" | "http" | "https" => {
                    let identifier = source.identifier.clone();
                    let time = source_time::of_remote(source, &self.ctx, self.images.store()).await;
                    time.map_err(|err| unanswered(&identifier, err.into_boxed_dyn_error()))
                }
                _ => Err(unanswered(
                    &source.identifier,
                    "this kind of source has no time; give SOURCE_DATE_EPOCH as a number",
                )),
            }
        })
    }
}

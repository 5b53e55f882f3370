//! Questions about a Dockerfile that do not need its base images: what a registry that cannot be reached would say is
//! made up, and a warning says so.

use std::sync::{Mutex, PoisonError};

use cbs_exec::SourceError;
use cbs_frontends::dockerfile::{ImageRequest, MetaResolver, ResolveError, ResolvedImage};
use cbs_image::ImageError;
use cbs_solver::{BoxFuture, pb};
use serde_json::json;

use crate::failure::chain;
use crate::missing::Lack;
use crate::resolver::{Resolver, is_about_the_way};

/// A resolver that never gives up for want of a network.
pub(crate) struct Lenient {
    inner: Resolver,
    voice: Voice,
    /// Of each image that could not be asked, what was lacking, if that is known.
    made_up: Mutex<Vec<Option<Lack>>>,
}

/// Whether it is said that answers are made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The first time.
    Warns,
    /// Not at all.
    Silent,
}

impl Lenient {
    pub(crate) fn new(inner: Resolver, voice: Voice) -> Self {
        Self {
            inner,
            voice,
            made_up: Mutex::default(),
        }
    }

    /// Whether any image could not be asked.
    pub(crate) fn made_up(&self) -> bool {
        !self.all().is_empty()
    }

    /// What was lacking so far.
    pub(crate) fn lacks(&self) -> Vec<Lack> {
        self.all().into_iter().flatten().collect()
    }

    fn all(&self) -> Vec<Option<Lack>> {
        self.made_up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: &ResolveError) {
        let mut made_up = self.made_up.lock().unwrap_or_else(PoisonError::into_inner);
        if made_up.is_empty() && self.voice == Voice::Warns {
            eprintln!("warning: answering without what base images say: {}", chain(error));
        }
        made_up.push(Lack::of(error));
    }
}

/// Whether an image may well exist, and only cannot be asked from here.
fn is_out_of_reach(error: &ResolveError) -> bool {
    if matches!(
        error.source.downcast_ref::<SourceError>(),
        Some(SourceError::NotLocked(_))
    ) {
        return true;
    }
    match error.source.downcast_ref::<ImageError>() {
        Some(ImageError::Offline(_)) => true,
        Some(ImageError::Registry(registry)) => is_about_the_way(&registry.kind),
        _ => false,
    }
}

impl MetaResolver for Lenient {
    fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
        Box::pin(async move {
            let (reference, platform) = (request.reference.clone(), request.platform.clone());
            match self.inner.image_config(request).await {
                Err(error) if is_out_of_reach(&error) => {
                    self.note(&error);
                    let config = json!({
                        "architecture": platform.architecture,
                        "os": platform.os,
                        "variant": platform.variant,
                        "config": {},
                        "rootfs": { "type": "layers", "diff_ids": [] },
                        "history": [{ "created_by": "unknown" }],
                    });
                    Ok(ResolvedImage {
                        reference,
                        digest: None,
                        config: config.to_string().into_bytes(),
                    })
                }
                answer => answer,
            }
        })
    }

    fn ignore_file<'a>(&'a self, local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
        self.inner.ignore_file(local)
    }

    fn source_time(&self, source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
        self.inner.source_time(source)
    }
}

//! Questions about a Dockerfile that do not need its base images: what a registry that cannot be reached would say is
//! made up, and a warning says so.

use std::sync::atomic::{AtomicBool, Ordering};

use cbs_exec::SourceError;
use cbs_frontends::dockerfile::{ImageRequest, MetaResolver, ResolveError, ResolvedImage};
use cbs_image::ImageError;
use cbs_solver::{BoxFuture, pb};
use serde_json::json;

use crate::failure::chain;
use crate::resolver::{Resolver, is_about_the_way};

/// A resolver that never gives up for want of a network.
pub(crate) struct Lenient {
    inner: Resolver,
    made_up: AtomicBool,
}

impl Lenient {
    pub(crate) fn new(inner: Resolver) -> Self {
        Self {
            inner,
            made_up: AtomicBool::new(false),
        }
    }

    /// Whether any image could not be asked.
    pub(crate) fn made_up(&self) -> bool {
        self.made_up.load(Ordering::Relaxed)
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
                    if !self.made_up.swap(true, Ordering::Relaxed) {
                        eprintln!("warning: answering without what base images say: {}", chain(&error));
                    }
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

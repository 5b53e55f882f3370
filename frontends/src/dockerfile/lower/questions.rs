//! Questions to the outside world, each asked once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cbs_solver::{BoxFuture, pb};
use futures_util::future::{FutureExt, Shared};

use super::super::resolver::{ImageRequest, MetaResolver, ResolveError, ResolvedImage};

pub(in super::super) type Answer = Result<Arc<ResolvedImage>, Arc<ResolveError>>;

/// The outside world as conversions see it.
pub(in super::super) trait Questions: Send + Sync {
    fn image(&self, request: ImageRequest) -> BoxFuture<'_, Answer>;

    fn ignore_file<'a>(&'a self, local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>>;

    fn source_time(&self, source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>>;
}

/// Asks for each image once, however many stages and platforms want it.
pub(in super::super) struct Resolver<'r> {
    inner: &'r dyn MetaResolver,
    asked: Mutex<HashMap<ImageRequest, Shared<BoxFuture<'r, Answer>>>>,
}

impl<'r> Resolver<'r> {
    pub(in super::super) fn new(inner: &'r dyn MetaResolver) -> Self {
        Self {
            inner,
            asked: Mutex::new(HashMap::new()),
        }
    }

    fn ask(&self, request: &ImageRequest) -> Shared<BoxFuture<'r, Answer>> {
        let inner = self.inner;
        let request = request.clone();
        async move { inner.image_config(request).await.map(Arc::new).map_err(Arc::new) }
            .boxed()
            .shared()
    }
}

impl Questions for Resolver<'_> {
    fn image(&self, request: ImageRequest) -> BoxFuture<'_, Answer> {
        // A panic while the lock was held left the map whole: it only ever grows by one entry.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = asked
            .entry(request)
            .or_insert_with_key(|request| self.ask(request))
            .clone();
        Box::pin(answer)
    }

    fn ignore_file<'a>(&'a self, local: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
        self.inner.ignore_file(local)
    }

    fn source_time(&self, source: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
        self.inner.source_time(source)
    }
}

//! What a mount's handle and its serving threads share. Memory only, since their descriptor tables differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cbs_store::{StoreError, TreeDigest};

use crate::Observer;
use crate::counts::Counters;
use crate::root_key::RootKey;
use crate::sync::lock;

/// State of one mount.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Requests answered.
    pub(crate) counters: Counters,
    failure: Mutex<Option<StoreError>>,
    views: Mutex<Views>,
}

#[derive(Debug, Default)]
struct Views {
    open: HashMap<RootKey, OpenView>,
    next_observed: u64,
}

#[derive(Debug)]
struct OpenView {
    handles: usize,
    observer: Option<Arc<dyn Observer>>,
}

impl Shared {
    /// Remembers the first failure of the store.
    pub(crate) fn fail(&self, err: StoreError) {
        lock(&self.failure).get_or_insert(err);
    }

    /// Hands the failure over.
    pub(crate) fn take_failure(&self) -> Option<StoreError> {
        lock(&self.failure).take()
    }

    /// Counts a handle to a tree.
    pub(crate) fn open_tree(&self, tree: TreeDigest) -> RootKey {
        let key = RootKey::Tree(tree);
        let mut views = lock(&self.views);
        let view = views.open.entry(key.clone()).or_insert(OpenView {
            handles: 0,
            observer: None,
        });
        view.handles += 1;
        key
    }

    /// Registers an observed tree under a name of its own.
    pub(crate) fn open_observed(&self, tree: TreeDigest, observer: Arc<dyn Observer>) -> RootKey {
        let mut views = lock(&self.views);
        let key = RootKey::Observed(tree, views.next_observed);
        views.next_observed += 1;
        let view = OpenView {
            handles: 1,
            observer: Some(observer),
        };
        views.open.insert(key.clone(), view);
        key
    }

    /// Gives a handle back.
    pub(crate) fn close(&self, key: &RootKey) {
        let mut views = lock(&self.views);
        if let Some(view) = views.open.get_mut(key) {
            view.handles -= 1;
            if view.handles == 0 {
                views.open.remove(key);
            }
        }
    }

    /// Whether someone holds a handle.
    pub(crate) fn is_open(&self, key: &RootKey) -> bool {
        lock(&self.views).open.contains_key(key)
    }

    /// The observer of an observed tree, `None` when that view is closed.
    pub(crate) fn observer(&self, key: &RootKey) -> Option<Arc<dyn Observer>> {
        lock(&self.views).open.get(key).and_then(|view| view.observer.clone())
    }
}

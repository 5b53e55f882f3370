//! Real mounts: what programs see through FUSE, and through overlayfs on FUSE.

#[path = "../common/mod.rs"]
mod common;

mod browse;
mod caching;
mod images;
mod mirror;
mod observe;
mod overlay;

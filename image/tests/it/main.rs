//! The image crate against real tools: a registry on loopback, skopeo, umoci.

mod archives;
mod local;
mod pulls;
mod registry;
mod support;

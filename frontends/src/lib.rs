//! The frontends of cbs: Dockerfile and bake files to LLB.

pub mod bake;
pub mod dockerfile;

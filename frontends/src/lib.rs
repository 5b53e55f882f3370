//! The frontends of cbs: Dockerfile and bake files to LLB.

pub mod dockerfile;

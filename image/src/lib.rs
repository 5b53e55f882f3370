//! The OCI model of cbs: configs, layers, registries and archives.

pub mod config;

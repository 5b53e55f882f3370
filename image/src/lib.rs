//! The OCI model of cbs: configs, layers, registries and archives.

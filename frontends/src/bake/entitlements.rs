//! Grants.

/// Grants.
#[derive(Clone, Debug, Default)]
pub struct Grants { pub read: Vec<String>, pub write: Vec<String>, pub network_host: bool, pub security_insecure: bool }

//! The registry client: manifests and blobs by reference, both ways.
//!
//! ```text
//! Registry ── per host ──► Endpoint (transport, tokens, oci-client) ──► wire
//!    pull: mirrors first, then the registry itself; broken transfers go on where they stopped
//!    push: exists? mount? upload; manifests last
//! ```
//! Passing faults (broken connections, 429, 5xx) are retried with growing pauses, an expired token is renewed once.
//! Call [`install_tls_provider`] once when the program starts.

mod challenge;
mod endpoint;
mod error;
mod pull;
mod push;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};

pub use error::{RegistryError, RegistryErrorKind};
pub use pull::FetchedManifest;
pub use push::BlobSource;

use crate::auth::DockerConfig;
use crate::reference::Reference;
use endpoint::Endpoint;

/// Docker Hub's registry; `docker.io` is its name in references only.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// How secure the way to a host must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// https, but plain http on this machine's loopback.
    #[default]
    Auto,
    /// https always.
    Tls,
    /// Plain http.
    Plain,
    /// https without looking at the certificate, and plain http when there is no https (Docker's "insecure registry").
    Insecure,
}

/// What is special about one registry.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// Hosts (with a path, if need be) to ask before the registry itself, for pulls.
    pub mirrors: Vec<String>,
    /// The way there.
    pub security: Security,
    /// PEM files of certificate authorities to trust besides the system's.
    pub certificate_authorities: Vec<PathBuf>,
}

/// Settings of the client.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// By the domain of references; mirrors have entries of their own.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Where credentials come from.
    pub credentials: Arc<DockerConfig>,
    /// How often a passing fault is retried.
    pub retries: u32,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            credentials: Arc::default(),
            retries: 5,
        }
    }
}

/// The client. Cloning is cheap; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    config: RegistryConfig,
    endpoints: Mutex<HashMap<EndpointKey, Arc<OnceCell<Arc<Endpoint>>>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct EndpointKey {
    address: String,
    mirror_of: Option<String>,
}

/// Chooses the TLS implementation of this process; a second call does nothing. The program calls it when it starts:
/// the choice is the process's, so a library must not make it silently.
pub fn install_tls_provider() {
    // An error means that one is installed already, which is all we want.
    drop(rustls::crypto::ring::default_provider().install_default());
}

impl Registry {
    /// A client; nothing is contacted yet.
    pub fn new(config: RegistryConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            endpoints: Mutex::default(),
        }))
    }

    /// The hosts to ask for a reference: mirrors, then the registry.
    fn addresses(&self, reference: &Reference) -> Vec<EndpointKey> {
        let domain = reference.domain();
        let mirrors = self
            .0
            .config
            .hosts
            .get(domain)
            .map(|host| host.mirrors.as_slice())
            .unwrap_or_default();
        let mut list: Vec<_> = mirrors
            .iter()
            .map(|mirror| EndpointKey {
                address: mirror
                    .trim_start_matches("https://")
                    .trim_start_matches("http://")
                    .trim_end_matches('/')
                    .to_owned(),
                mirror_of: Some(domain.to_owned()),
            })
            .collect();
        list.push(origin(reference));
        list
    }

    async fn endpoint(&self, reference: &Reference, key: &EndpointKey) -> Result<Arc<Endpoint>, RegistryErrorKind> {
        let cell = Arc::clone(self.0.endpoints.lock().await.entry(key.clone()).or_default());
        let open = || async {
            let host = key.address.split('/').next().unwrap_or(&key.address);
            let (config_key, auth_key) = match &key.mirror_of {
                Some(_) => (host, host.to_owned()),
                None => (reference.domain(), reference.auth_key().to_owned()),
            };
            let config = self.0.config.hosts.get(config_key).cloned().unwrap_or_default();
            let stored = Arc::clone(&self.0.config.credentials);
            let credentials = crate::blocking(move || stored.credentials(&auth_key)).await?;
            self.retry(|| Endpoint::open(&key.address, key.mirror_of.as_deref(), &config, credentials.clone()))
                .await
                .map(Arc::new)
        };
        cell.get_or_try_init(open).await.map(Arc::clone)
    }

    /// Runs a request again after passing faults.
    async fn retry<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, RegistryErrorKind>
    where
        F: Future<Output = Result<T, RegistryErrorKind>>,
    {
        let mut attempt = 0;
        loop {
            match request().await {
                Err(err) if err.is_transient() && attempt < self.0.config.retries => {
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Runs an authorised request; renews the tokens once when the registry no longer takes them.
    async fn request<T, F>(&self, endpoint: &Endpoint, mut request: impl FnMut() -> F) -> Result<T, RegistryErrorKind>
    where
        F: Future<Output = Result<T, RegistryErrorKind>>,
    {
        match self.retry(&mut request).await {
            Err(RegistryErrorKind::Unauthorized { .. }) => {
                endpoint.forget_tokens().await;
                self.retry(request).await
            }
            other => other,
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registry").field(&self.0.config).finish()
    }
}

/// The registry itself, where pushes go.
fn origin(reference: &Reference) -> EndpointKey {
    let domain = reference.domain();
    EndpointKey {
        address: if domain == "docker.io" { DOCKER_HUB } else { domain }.to_owned(),
        mirror_of: None,
    }
}

/// 0.2, 0.4, 0.8 … at most 10 seconds.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(200 << attempt.min(6)).min(Duration::from_secs(10))
}

/// Gives a failure its place.
fn failed(
    action: &'static str,
    reference: impl std::fmt::Display,
    registry: &str,
) -> impl FnOnce(RegistryErrorKind) -> RegistryError {
    let (reference, registry) = (reference.to_string(), registry.to_owned());
    move |kind| RegistryError {
        action,
        reference,
        registry,
        kind,
    }
}

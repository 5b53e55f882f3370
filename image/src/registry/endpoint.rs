//! One host that speaks the registry protocol: how to reach it, and the tokens for it.
//!
//! The wire calls are oci-client's. What it cannot do is done here and handed to it: choosing between https and http,
//! credentials of every kind, tokens (put into its cache, renewed before they expire), and connecting where no CA
//! certificates are installed, which makes its constructor panic.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryToken, RegistryTokenType};
use oci_client::{Client, RegistryOperation};
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::error::RegistryErrorKind;
use super::token::{self, Token, Transport};
use super::{HostConfig, Security};
use crate::auth::Credentials;

const USER_AGENT: &str = concat!("cbs/", env!("CARGO_PKG_VERSION"));

/// A connection attempt longer than this fails: a dropped packet is resent after 1, 3 and 7 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A stream that is silent for this long counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A reachable host.
pub(super) struct Endpoint {
    /// Host and port.
    pub(super) host: String,
    /// Repositories are below this, for mirrors.
    pub(super) prefix: Option<String>,
    /// For a mirror: the registry it stands for.
    pub(super) mirror_of: Option<String>,
    pub(super) client: Client,
    http: reqwest::Client,
    transport: Transport,
    challenge: Challenge,
    credentials: Credentials,
    tokens: Mutex<HashMap<TokenKey, Instant>>,
}

#[derive(PartialEq, Eq, Hash)]
struct TokenKey {
    repository: String,
    operation: &'static str,
    also: Option<String>,
}

impl Endpoint {
    /// Connects and learns how to authenticate.
    ///
    /// # Errors
    /// [`RegistryErrorKind`] when no configured transport works.
    pub(super) async fn open(
        address: &str,
        mirror_of: Option<&str>,
        config: &HostConfig,
        credentials: Credentials,
    ) -> Result<Self, RegistryErrorKind> {
        let (host, prefix) = match address.split_once('/') {
            Some((host, prefix)) => (
                host,
                Some(prefix.trim_matches('/').to_owned()).filter(|path| !path.is_empty()),
            ),
            None => (address, None),
        };
        let mut last = None;
        for &transport in transports(host, config.security) {
            let (client, http) = clients(transport, config).await?;
            match ping(&http, host, transport).await {
                Ok(challenge) => {
                    if challenge != Challenge::Open {
                        // oci-client asks its token cache, which we fill, only for registries it has credentials for.
                        // It must not know the real ones: its own token flow would send them.
                        client.store_auth_if_needed(host, &RegistryAuth::Anonymous).await;
                    }
                    return Ok(Self {
                        host: host.to_owned(),
                        prefix,
                        mirror_of: mirror_of.map(str::to_owned),
                        client,
                        http,
                        transport,
                        challenge,
                        credentials,
                        tokens: Mutex::new(HashMap::new()),
                    });
                }
                Err(err) => last = Some(err),
            }
        }
        Err(last.unwrap_or_else(|| RegistryErrorKind::Setup("no transport is allowed".to_owned())))
    }

    /// Whether requests carry a secret.
    pub(super) fn has_credentials(&self) -> bool {
        self.credentials != Credentials::Anonymous
    }

    /// The library's name for a repository here, with a tag or a digest.
    pub(super) fn locate(&self, repository: &str, tag_or_digest: &str) -> oci_client::Reference {
        let repository = match &self.prefix {
            Some(prefix) => format!("{prefix}/{repository}"),
            None => repository.to_owned(),
        };
        let registry = self.mirror_of.clone().unwrap_or_else(|| self.host.clone());
        let mut reference = if tag_or_digest.contains(':') {
            // The digest also as the tag: oci-client's workaround for registries that send no Location expects a tag.
            let (tag, digest) = (tag_or_digest.to_owned(), tag_or_digest.to_owned());
            oci_client::Reference::with_tag_and_digest(registry, repository, tag, digest)
        } else {
            oci_client::Reference::with_tag(registry, repository, tag_or_digest.to_owned())
        };
        if self.mirror_of.is_some() {
            reference.set_mirror_registry(self.host.clone());
        }
        reference
    }

    /// Sees to it that the client has a good token for this repository; `also` is a second one to read from. A token for
    /// pushing serves for reading too: some registries let nobody read what is not there yet without it.
    ///
    /// # Errors
    /// [`RegistryErrorKind`] of the token server.
    pub(super) async fn authorize(
        &self,
        reference: &oci_client::Reference,
        operation: RegistryOperation,
        also: Option<&str>,
    ) -> Result<(), RegistryErrorKind> {
        let actions = match operation {
            RegistryOperation::Pull => "pull",
            RegistryOperation::Push => "pull,push",
        };
        let token = match &self.challenge {
            Challenge::Open => return Ok(()),
            Challenge::Basic => match &self.credentials {
                Credentials::Basic { username, password } => {
                    RegistryTokenType::Basic(username.clone(), password.reveal().to_owned())
                }
                Credentials::Bearer(token) => bearer(token.reveal())?,
                _ => return Ok(()),
            },
            Challenge::Bearer { realm, service } => {
                if let Credentials::Bearer(token) = &self.credentials {
                    bearer(token.reveal())?
                } else {
                    let key = TokenKey {
                        repository: reference.repository().to_owned(),
                        operation: actions,
                        also: also.map(str::to_owned),
                    };
                    // Held across the request: others who want the same token wait for it instead of asking again.
                    let mut tokens = self.tokens.lock().await;
                    if tokens.get(&key).is_some_and(|renew_at| Instant::now() < *renew_at) {
                        return Ok(());
                    }
                    let mut scopes = vec![format!("repository:{}:{actions}", reference.repository())];
                    scopes.extend(also.map(|repository| format!("repository:{repository}:pull")));
                    let Token { value, renew_at } = token::fetch(
                        &self.http,
                        realm,
                        service.as_deref(),
                        &scopes,
                        &self.credentials,
                        self.transport,
                    )
                    .await?;
                    tokens.insert(key, renew_at);
                    bearer(&value)?
                }
            }
        };
        if operation == RegistryOperation::Push {
            self.client
                .tokens
                .insert(reference, RegistryOperation::Pull, token.clone())
                .await;
        }
        self.client.tokens.insert(reference, operation, token).await;
        Ok(())
    }

    /// Forgets tokens that the registry no longer takes.
    pub(super) async fn forget_tokens(&self) {
        self.tokens.lock().await.clear();
    }
}

/// A token as the client wants it. It becomes a header there, so it must be fit for one.
fn bearer(token: &str) -> Result<RegistryTokenType, RegistryErrorKind> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RegistryErrorKind::Protocol(
            "the token has characters no header may hold".to_owned(),
        ));
    }
    Ok(RegistryTokenType::Bearer(RegistryToken::Token {
        token: token.to_owned(),
    }))
}

fn transports(host: &str, security: Security) -> &'static [Transport] {
    match security {
        Security::Auto if is_loopback(host) => &[Transport::Plain],
        Security::Auto | Security::Tls => &[Transport::Tls],
        Security::Plain => &[Transport::Plain],
        Security::Insecure if is_loopback(host) => &[Transport::Plain, Transport::Tls],
        Security::Insecure => &[Transport::Tls, Transport::Plain],
    }
}

/// Whether a host is this machine, where plain http is safe.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn clients(transport: Transport, config: &HostConfig) -> Result<(Client, reqwest::Client), RegistryErrorKind> {
    let mut certificates = Vec::new();
    for path in &config.certificate_authorities {
        certificates.push(read_certificates(path).await?);
    }
    let skip_verify = config.security == Security::Insecure;
    let build = move || -> Result<(Client, reqwest::Client), RegistryErrorKind> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(RegistryErrorKind::Setup(
                "`install_tls_provider` was not called".to_owned(),
            ));
        }
        let setup = |err: &reqwest::Error| RegistryErrorKind::Setup(err.to_string());
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .danger_accept_invalid_certs(skip_verify);
        for pem in &certificates {
            for certificate in reqwest::Certificate::from_pem_bundle(pem).map_err(|err| setup(&err))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let http = builder.build().map_err(|err| setup(&err))?;
        // oci-client builds a default client on the way and panics when that fails, as it does without any CA
        // certificate; see first whether it would.
        reqwest::Client::builder().build().map_err(|err| setup(&err))?;
        let client = Client::try_from(ClientConfig {
            protocol: match transport {
                Transport::Plain => ClientProtocol::Http,
                Transport::Tls => ClientProtocol::Https,
            },
            accept_invalid_certificates: skip_verify,
            use_monolithic_push: true,
            extra_root_certificates: certificates
                .into_iter()
                .map(|data| Certificate {
                    encoding: CertificateEncoding::Pem,
                    data,
                })
                .collect(),
            platform_resolver: None,
            // Our tokens say themselves when they end; this is for those that the library cannot read.
            default_token_expiration_secs: 24 * 3600,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        })
        .map_err(|err| RegistryErrorKind::Setup(err.to_string()))?;
        Ok((client, http))
    };
    // Loading the system's certificates reads and parses a hundred files.
    crate::blocking(build).await
}

async fn read_certificates(path: &Path) -> Result<Vec<u8>, RegistryErrorKind> {
    let path = path.to_owned();
    crate::blocking(move || {
        std::fs::read(&path)
            .map_err(|err| RegistryErrorKind::Setup(format!("cannot read certificate `{}`: {err}", path.display())))
    })
    .await
}

async fn ping(http: &reqwest::Client, host: &str, transport: Transport) -> Result<Challenge, RegistryErrorKind> {
    let scheme = match transport {
        Transport::Plain => "http",
        Transport::Tls => "https",
    };
    let response = http
        .get(format!("{scheme}://{host}/v2/"))
        .send()
        .await
        .map_err(|err| RegistryErrorKind::from_http(&err))?;
    let status = response.status();
    if status.is_server_error() {
        return Err(RegistryErrorKind::from_status(status.as_u16(), "", false));
    }
    if status != reqwest::StatusCode::UNAUTHORIZED {
        return Ok(Challenge::Open);
    }
    let headers = response.headers().get_all(reqwest::header::WWW_AUTHENTICATE);
    Challenge::parse(headers.iter().filter_map(|value| value.to_str().ok()))
        .ok_or_else(|| RegistryErrorKind::Protocol("it wants a kind of login that is not known".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        for (host, want) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("reg.localhost", true),
            ("registry.example:5000", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), want, "{host}");
        }
    }
}

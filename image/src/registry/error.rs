//! Failures of registries, with what a person can do about each.

use std::error::Error;

use oci_client::errors::{OciDistributionError, OciErrorCode};

use crate::auth::AuthError;

/// A failed request; the message names the image, the registry and the reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{reference}`: {kind} (registry {registry})")]
pub struct RegistryError {
    /// A verb phrase such as `pull the manifest of`.
    pub action: &'static str,
    /// The image, or a blob in it.
    pub reference: String,
    /// The host that was asked.
    pub registry: String,
    /// The reason.
    #[source]
    pub kind: RegistryErrorKind,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryErrorKind {
    /// 401.
    #[error("not authorized{}", if *.had_credentials { " with the stored credentials" } else { "" })]
    Unauthorized {
        /// Whether any were sent.
        had_credentials: bool,
    },
    /// 403.
    #[error("access denied: {0}")]
    Denied(String),
    /// 404.
    #[error("not found")]
    NotFound,
    /// 429.
    #[error("too many requests: {0}")]
    TooManyRequests(String),
    /// Another bad status.
    #[error("the registry answered with status {code}: {message}")]
    Status {
        /// The status.
        code: u16,
        /// What the registry said, shortened.
        message: String,
    },
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No secure connection.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// A connection that broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// An answer that is against the protocol.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// Credentials that cannot be had.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// This machine cannot make secure connections at all.
    #[error("cannot set up secure connections: {0}")]
    Setup(String),
    /// Bytes for an upload that cannot be read.
    #[error("cannot read what is to be pushed")]
    Local(#[source] std::io::Error),
}

impl RegistryErrorKind {
    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::TooManyRequests(_) | Self::Broken(_) => true,
            Self::Status { code, .. } => matches!(code, 408 | 500..=599),
            _ => false,
        }
    }

    /// Whether another mirror may do better: everything that is not about our own machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Setup(_))
    }

    pub(crate) fn from_status(code: u16, message: &str, had_credentials: bool) -> Self {
        match code {
            401 => Self::Unauthorized { had_credentials },
            403 => Self::Denied(shorten(message)),
            404 => Self::NotFound,
            429 => Self::TooManyRequests(shorten(message)),
            code => Self::Status {
                code,
                message: shorten(message),
            },
        }
    }

    pub(crate) fn from_http(err: &reqwest::Error) -> Self {
        let text = root_cause(err);
        if let Some(status) = err.status() {
            return Self::from_status(status.as_u16(), "", false);
        }
        // A peer that hangs up on the first TLS message gives no rustls error.
        if is_tls(err) || text.contains("tls handshake") {
            return Self::Tls(text);
        }
        if err.is_connect() {
            return Self::Connect(text);
        }
        if err.is_builder() {
            return Self::Setup(text);
        }
        Self::Broken(text)
    }

    pub(crate) fn from_client(err: OciDistributionError, had_credentials: bool) -> Self {
        use OciDistributionError as E;
        match err {
            E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => Self::Unauthorized { had_credentials },
            E::RegistryError { envelope, .. } => {
                let message = envelope.to_string();
                match envelope.errors.first().map(|error| &error.code) {
                    Some(OciErrorCode::Unauthorized) => Self::Unauthorized { had_credentials },
                    Some(OciErrorCode::Denied) => Self::Denied(shorten(&message)),
                    Some(OciErrorCode::Toomanyrequests) => Self::TooManyRequests(shorten(&message)),
                    Some(
                        OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                        | OciErrorCode::BlobUnknown,
                    ) => Self::NotFound,
                    _ => Self::Protocol(shorten(&message)),
                }
            }
            E::ServerError { code, message, .. } => Self::from_status(code, &message, had_credentials),
            E::RequestError(err) => match err.status() {
                Some(status) => Self::from_status(status.as_u16(), "", had_credentials),
                None => Self::from_http(&err),
            },
            E::IoError(err) => Self::Broken(root_cause(&err)),
            other => Self::Protocol(shorten(&other.to_string())),
        }
    }
}

impl RegistryError {
    /// What a person can do about it.
    pub fn help(&self) -> Option<String> {
        let registry = &self.registry;
        Some(match &self.kind {
            RegistryErrorKind::Unauthorized { had_credentials: false } => {
                format!("log in with `docker login {registry}`, or check that the image exists and is public")
            }
            RegistryErrorKind::Unauthorized { had_credentials: true } => {
                format!("renew the credentials with `docker login {registry}`")
            }
            RegistryErrorKind::Denied(_) => "ask the owner of the repository for access".to_owned(),
            RegistryErrorKind::NotFound => "check the name and the tag".to_owned(),
            RegistryErrorKind::TooManyRequests(_) => {
                "log in for a higher limit, wait, or configure a mirror".to_owned()
            }
            RegistryErrorKind::Connect(_) => {
                format!("check that `{registry}` is running and reachable from here (proxy, firewall, spelling)")
            }
            RegistryErrorKind::Tls(_) => format!(
                "add the certificate authority of `{registry}`; if it speaks plain http, mark it as an insecure registry"
            ),
            RegistryErrorKind::Setup(_) => "install the system's certificates (ca-certificates)".to_owned(),
            _ => return None,
        })
    }
}

/// The innermost cause: the outer ones only say that a request failed.
fn root_cause(err: &(dyn Error + 'static)) -> String {
    let mut innermost = err;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    shorten(&innermost.to_string())
}

fn is_tls(err: &(dyn Error + 'static)) -> bool {
    let mut current = Some(err);
    while let Some(err) = current {
        if err.is::<rustls::Error>() {
            return true;
        }
        // The source of an io::Error is that of the error it wraps, which is skipped.
        if let Some(inner) = err.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && is_tls(inner)
        {
            return true;
        }
        current = err.source();
    }
    false
}

/// Registries answer with whole HTML pages at times.
fn shorten(text: &str) -> String {
    const LIMIT: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LIMIT) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_everything() {
        let err = RegistryError {
            action: "pull the manifest of",
            reference: "r.example/app:1".into(),
            registry: "r.example".into(),
            kind: RegistryErrorKind::Unauthorized { had_credentials: false },
        };
        assert_eq!(
            err.to_string(),
            "cannot pull the manifest of `r.example/app:1`: not authorized (registry r.example)"
        );
        assert!(err.help().expect("help").contains("docker login r.example"));
    }

    #[test]
    fn only_passing_faults_are_retried() {
        for (code, want) in [
            (401, false),
            (404, false),
            (429, true),
            (500, true),
            (503, true),
            (418, false),
        ] {
            assert_eq!(
                RegistryErrorKind::from_status(code, "", false).is_transient(),
                want,
                "{code}"
            );
        }
        assert_eq!(shorten(&"x ".repeat(1000)).chars().count(), 301);
    }
}

//! Trades credentials for a bearer token at a registry's token server.
//!
//! The client library has one flow (basic credentials, one scope); this has all of Docker's: identity tokens, and a
//! second scope for mounting blobs across repositories.

use std::time::{Duration, Instant};

use reqwest::Url;
use serde::Deserialize;

use super::error::RegistryErrorKind;
use crate::auth::Credentials;

/// What the protocol assumes when the server says nothing.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// How long before its end a token counts as expired.
const MARGIN: Duration = Duration::from_secs(10);

/// A token and the time to renew it.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: String,
    pub(super) renew_at: Instant,
}

/// Asks the token server at `realm` for a token over these scopes.
///
/// # Errors
/// [`RegistryErrorKind`]; 401 and 403 of the token server count as the registry's.
pub(super) async fn fetch(
    http: &reqwest::Client,
    realm: &str,
    service: Option<&str>,
    scopes: &[String],
    credentials: &Credentials,
    transport: Transport,
) -> Result<Token, RegistryErrorKind> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
        expires_in: Option<u64>,
    }
    let url =
        Url::parse(realm).map_err(|_| RegistryErrorKind::Protocol(format!("token server `{realm}` is no URL")))?;
    // A registry behind TLS must not be able to make us send a password in the clear.
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && transport == Transport::Plain;
    if !is_safe && *credentials != Credentials::Anonymous {
        return Err(RegistryErrorKind::Protocol(format!(
            "refusing to send credentials to `{realm}`"
        )));
    }
    let had_credentials = *credentials != Credentials::Anonymous;
    let request = match credentials {
        Credentials::Identity(token) => {
            let mut form = vec![
                ("grant_type", "refresh_token"),
                ("client_id", "cbs"),
                ("refresh_token", token.reveal()),
            ];
            let scope = scopes.join(" ");
            form.push(("scope", &scope));
            form.extend(service.map(|service| ("service", service)));
            http.post(url)
                .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form_encoded(&form))
        }
        _ => {
            let mut url = url;
            {
                let mut query = url.query_pairs_mut();
                if let Some(service) = service {
                    query.append_pair("service", service);
                }
                for scope in scopes {
                    query.append_pair("scope", scope);
                }
            }
            match credentials {
                Credentials::Basic { username, password } => {
                    http.get(url).basic_auth(username, Some(password.reveal()))
                }
                _ => http.get(url),
            }
        }
    };
    let response = request.send().await.map_err(|err| RegistryErrorKind::from_http(&err))?;
    let status = response.status().as_u16();
    let body = read_limited(response, 1 << 20).await?;
    if status != 200 {
        return Err(RegistryErrorKind::from_status(
            status,
            &String::from_utf8_lossy(&body),
            had_credentials,
        ));
    }
    let unclear = || RegistryErrorKind::Protocol("the token server's answer is not understood".to_owned());
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| unclear())?;
    let value = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    // It becomes a header.
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unclear());
    }
    let lifetime = answer
        .expires_in
        .map_or(DEFAULT_LIFETIME, |seconds| Duration::from_secs(seconds.min(24 * 3600)));
    Ok(Token {
        value,
        renew_at: Instant::now() + lifetime.saturating_sub(MARGIN),
    })
}

/// How a registry is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Plain,
    Tls,
}

fn form_encoded(pairs: &[(&str, &str)]) -> String {
    // The URL type has the one form encoder among our dependencies.
    Url::parse_with_params("http://form/", pairs)
        .ok()
        .and_then(|url| url.query().map(str::to_owned))
        .unwrap_or_default()
}

/// Reads a body up to a limit.
pub(super) async fn read_limited(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, RegistryErrorKind> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|err| RegistryErrorKind::from_http(&err))?
    {
        if body.len() + chunk.len() > limit {
            return Err(RegistryErrorKind::Protocol(format!(
                "the answer is larger than {limit} bytes"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form_encoded(&[("a", "b c&d"), ("e", "ü")]), "a=b+c%26d&e=%C3%BC");
    }
}

//! Credentials as Docker keeps them: `config.json`, credential helpers, identity tokens, `DOCKER_AUTH_CONFIG`.
//!
//! Nothing here is ever logged: [`Secret`] has no way to be printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, general_purpose};
use serde::Deserialize;

/// How long a credential helper may take; some ask a person.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// The user name under which helpers and `docker login` keep an identity token.
const TOKEN_USER: &str = "<token>";

/// A password or token. Debug shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a registry is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// A user and a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, traded for access tokens.
    Identity(Secret),
    /// A bearer token sent as it is.
    Bearer(Secret),
}

/// Credentials that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read.
    #[error("cannot read docker config `{path}`")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is malformed. The cause may quote the file, so it is left out.
    #[error("docker config `{path}` is malformed at line {line}")]
    Malformed {
        /// The file or variable.
        path: String,
        /// Where.
        line: usize,
    },
    /// The `auth` of a registry is not base64 of `user:password`.
    #[error("docker config has a malformed `auth` for `{0}`")]
    Entry(String),
    /// The helper cannot be run.
    #[error("cannot run credential helper `{program}`")]
    Helper {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The helper ran and failed.
    #[error("credential helper `{program}` failed: {message}")]
    HelperFailed {
        /// The program.
        program: String,
        /// The last thing it said.
        message: String,
    },
}

/// Docker's `config.json`, as far as credentials go. The default has none.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    /// Entries of `DOCKER_AUTH_CONFIG`; they win.
    #[serde(skip)]
    overrides: BTreeMap<String, Entry>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("auths", &self.auths.keys().collect::<Vec<_>>())
            .field("creds_store", &self.creds_store)
            .field("cred_helpers", &self.cred_helpers)
            .finish_non_exhaustive()
    }
}

impl DockerConfig {
    /// Reads a `config.json`; an absent file has no credentials.
    ///
    /// # Errors
    /// [`AuthError::Read`] and [`AuthError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, AuthError> {
        let shown = path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => Self::parse(&bytes, &shown),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(AuthError::Read { path: shown, source }),
        }
    }

    /// Lays the value of `DOCKER_AUTH_CONFIG` over the file, as the docker command does.
    ///
    /// # Errors
    /// [`AuthError::Malformed`].
    pub fn with_environment(mut self, value: &str) -> Result<Self, AuthError> {
        self.overrides = Self::parse(value.as_bytes(), "DOCKER_AUTH_CONFIG")?.auths;
        Ok(self)
    }

    fn parse(bytes: &[u8], path: &str) -> Result<Self, AuthError> {
        serde_json::from_slice(bytes).map_err(|err| AuthError::Malformed {
            path: path.to_owned(),
            line: err.line(),
        })
    }

    /// What to give the registry of this key ([`Reference::auth_key`](crate::reference::Reference::auth_key)). May run a
    /// helper: call it from a blocking thread.
    ///
    /// # Errors
    /// [`AuthError`] when an entry is malformed or a helper fails; a helper that knows nothing gives
    /// [`Credentials::Anonymous`].
    pub fn credentials(&self, key: &str) -> Result<Credentials, AuthError> {
        if let Some(entry) = find(&self.overrides, key) {
            return entry.credentials(key);
        }
        let host = host_of(key);
        let helper = self.cred_helpers.get(key).or_else(|| self.cred_helpers.get(host));
        if let Some(helper) = helper {
            return ask_helper(helper, key);
        }
        // `docker login` with a store leaves an empty entry behind; the store has the rest.
        if let Some(store) = self.creds_store.as_deref().filter(|store| !store.is_empty()) {
            match ask_helper(store, key)? {
                Credentials::Anonymous => {}
                found => return Ok(found),
            }
        }
        match find(&self.auths, key) {
            Some(entry) => entry.credentials(key),
            None => Ok(Credentials::Anonymous),
        }
    }
}

impl Entry {
    fn credentials(&self, key: &str) -> Result<Credentials, AuthError> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Credentials::Bearer(Secret(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Credentials::Identity(Secret(token)));
        }
        let (username, password) = match given(&self.auth) {
            Some(auth) => decode_auth(&auth).ok_or_else(|| AuthError::Entry(key.to_owned()))?,
            None => match (given(&self.username), given(&self.password)) {
                (Some(username), Some(password)) => (username, password),
                _ => return Ok(Credentials::Anonymous),
            },
        };
        Ok(from_pair(username, password))
    }
}

fn from_pair(username: String, password: String) -> Credentials {
    if username == TOKEN_USER {
        Credentials::Identity(Secret(password))
    } else {
        Credentials::Basic {
            username,
            password: Secret(password),
        }
    }
}

/// `user:password` in base64, with padding or without, and with the NUL bytes some tools append.
fn decode_auth(auth: &str) -> Option<(String, String)> {
    let engine = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        general_purpose::PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = String::from_utf8(engine.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

/// An entry by its exact key, else by its host.
fn find<'a>(entries: &'a BTreeMap<String, Entry>, key: &str) -> Option<&'a Entry> {
    entries.get(key).or_else(|| {
        entries
            .iter()
            .find(|(name, _)| host_of(name) == host_of(key))
            .map(|(_, entry)| entry)
    })
}

/// Keys are hosts or URLs with a scheme and a path.
fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

fn ask_helper(name: &str, key: &str) -> Result<Credentials, AuthError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let program = format!("docker-credential-{name}");
    let failed = |message: &str| AuthError::HelperFailed {
        program: program.clone(),
        message: message.to_owned(),
    };
    // A name with a slash would run a program from anywhere.
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    {
        return Err(failed("its name may hold letters, digits, `-`, `_` and `.` only"));
    }
    let (succeeded, output) = run(&program, key)?;
    if !succeeded {
        let message = String::from_utf8_lossy(&output);
        let message = message.trim();
        if message.contains("credentials not found") {
            return Ok(Credentials::Anonymous);
        }
        return Err(failed(message.lines().last().unwrap_or("no message")));
    }
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| failed("its answer is not understood"))?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    Ok(from_pair(answer.username, answer.secret))
}

/// Runs `program get` with the key on its input; whether it succeeded, and its output.
fn run(program: &str, key: &str) -> Result<(bool, Vec<u8>), AuthError> {
    let shape = |source| AuthError::Helper {
        program: program.to_owned(),
        source,
    };
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(shape)?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input closes the pipe; its exit status tells more than that error.
        drop(input.write_all(key.as_bytes()));
    }
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(output) = output {
            // A failure shows as an answer that is not understood.
            drop(output.take(1 << 20).read_to_end(&mut bytes));
        }
        bytes
    });
    let deadline = Instant::now() + HELPER_TIMEOUT;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(shape)? {
            break status;
        }
        if Instant::now() > deadline {
            // Already gone is as good.
            drop(child.kill());
            drop(child.wait());
            return Err(AuthError::HelperFailed {
                program: program.to_owned(),
                message: format!("no answer in {} seconds", HELPER_TIMEOUT.as_secs()),
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    Ok((status.success(), reader.join().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic {
            username: username.into(),
            password: Secret::new(password),
        }
    }

    #[test]
    fn entries_of_the_file() {
        let config = DockerConfig::parse(
            br#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},
                "ghcr.io":{"auth":"dXNlcjpwYXNz"},
                "https://quay.io/v2/":{"username":"a","password":"b"},
                "id.example":{"auth":"PHRva2VuPjo=","identitytoken":"refresh"},
                "reg.example:5000":{"registrytoken":"bearer"},
                "empty.example":{},
                "bad.example":{"auth":"@@"}
            },"unknown":1}"#,
            "config.json",
        )
        .expect("config");
        let cases = [
            ("https://index.docker.io/v1/", basic("user", "pa:ss")),
            ("ghcr.io", basic("user", "pass")),
            ("quay.io", basic("a", "b")),
            ("id.example", Credentials::Identity(Secret::new("refresh"))),
            ("reg.example:5000", Credentials::Bearer(Secret::new("bearer"))),
            ("reg.example", Credentials::Anonymous),
            ("empty.example", Credentials::Anonymous),
            ("other.example", Credentials::Anonymous),
        ];
        for (key, want) in cases {
            assert_eq!(config.credentials(key).expect(key), want, "{key}");
        }
        assert!(matches!(config.credentials("bad.example"), Err(AuthError::Entry(_))));
        let config = config
            .with_environment(r#"{"auths":{"ghcr.io":{"auth":"eDp5"}}}"#)
            .expect("environment");
        assert_eq!(config.credentials("ghcr.io").expect("entry"), basic("x", "y"));
        assert!(!format!("{config:?}").contains("dXNlc"));
    }

    #[test]
    fn malformed_files_do_not_leak() {
        let err = DockerConfig::parse(b"{\"auths\":{\"a\":{\"auth\":hunter2", "c.json").expect_err("malformed");
        assert_eq!(err.to_string(), "docker config `c.json` is malformed at line 1");
        assert!(std::error::Error::source(&err).is_none());
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn helper_names_are_checked() {
        for name in ["../evil", "a b", ""] {
            assert!(
                matches!(ask_helper(name, "k"), Err(AuthError::HelperFailed { .. })),
                "{name}"
            );
        }
        assert!(matches!(
            ask_helper("no-such-helper-here", "k"),
            Err(AuthError::Helper { .. })
        ));
    }
}

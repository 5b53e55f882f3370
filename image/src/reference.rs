//! Image references as Docker reads them: `ubuntu` means `docker.io/library/ubuntu:latest`.
//!
//! The grammar is that of the distribution project. A name may be at most 255 bytes without its domain.

use std::fmt;
use std::str::FromStr;

use cbs_store::Sha256Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A parsed reference with domain and repository always set. Display gives the normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Sha256Digest>,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Nothing there.
    #[error("image reference is empty")]
    Empty,
    /// Docker forbids capital letters in repositories.
    #[error("invalid reference `{0}`: the repository name must be lowercase")]
    Uppercase(String),
    /// 64 hex digits could be an image id.
    #[error("invalid reference `{0}`: a repository name cannot be 64 hex digits")]
    Identifier(String),
    /// The repository is over-long.
    #[error("invalid reference `{0}`: the repository name has more than {NAME_MAX} characters")]
    TooLong(String),
    /// Only sha256 digests are known.
    #[error("invalid reference `{0}`: the digest must be `sha256:` and 64 lower-case hex digits")]
    Digest(String),
    /// Something else is against the grammar.
    #[error("invalid reference `{0}`: expected `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`")]
    Format(String),
}

impl Reference {
    /// The registry: `docker.io` for Docker Hub, else host and port as written.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in the registry, such as `library/ubuntu`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, when one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, when one was given.
    pub fn digest(&self) -> Option<&Sha256Digest> {
        self.digest.as_ref()
    }

    /// `domain/repository` without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// The reference with tag `latest` when it has neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same name and tag, pinned.
    #[must_use]
    pub fn with_digest(mut self, digest: Sha256Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The short form Docker shows: `ubuntu:24.04`, `user/app`, `ghcr.io/a/b`.
    pub fn familiar(&self) -> String {
        let mut text = if self.domain == DEFAULT_DOMAIN {
            match self.repository.strip_prefix(OFFICIAL) {
                Some(rest) if !rest.contains('/') => rest.to_owned(),
                _ => self.repository.clone(),
            }
        } else {
            self.name()
        };
        self.push_suffix(&mut text);
        text
    }

    /// The key of the registry in Docker's `config.json`: a URL of old for Docker Hub.
    pub fn auth_key(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN {
            "https://index.docker.io/v1/"
        } else {
            &self.domain
        }
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.oci());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use ParseReferenceError::{Digest, Empty, Format, Identifier, TooLong, Uppercase};
        if text.is_empty() {
            return Err(Empty);
        }
        if cbs_store::unhex32(text).is_ok() {
            return Err(Identifier(text.to_owned()));
        }
        let format = || Format(text.to_owned());
        let (domain, rest) = split_domain(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digest = Sha256Digest::parse_oci(digest).map_err(|_| Digest(text.to_owned()))?;
                (rest, Some(digest))
            }
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => return Err(format()),
            None => (rest, None),
        };
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(Uppercase(text.to_owned()));
        }
        if !is_domain(domain) || repository.is_empty() || !repository.split('/').all(is_path_component) {
            return Err(format());
        }
        let repository = if domain == DEFAULT_DOMAIN && !repository.contains('/') {
            format!("{OFFICIAL}{repository}")
        } else {
            repository.to_owned()
        };
        if repository.len() > NAME_MAX {
            return Err(TooLong(text.to_owned()));
        }
        Ok(Self {
            domain: domain.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

/// Whether a tag may be written behind a name.
pub fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= TAG_MAX
        && bytes.first().is_some_and(|&first| word(first))
        && bytes.iter().all(|&byte| word(byte) || byte == b'.' || byte == b'-')
}

/// The part before the first slash is a registry when it looks like one: it has a dot, a colon or a capital letter, or
/// is `localhost`.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if rest.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        }
    };
    let port_is_fine = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    port_is_fine && host.is_none_or(|host| host.split('.').all(label_is_fine))
}

/// Lower-case letters and digits joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = component.as_bytes();
    loop {
        let letters = rest.iter().take_while(|byte| is_letter(byte)).count();
        if letters == 0 {
            return false;
        }
        rest = &rest[letters..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.iter().take_while(|byte| !is_letter(byte)).count();
        match &rest[..separator] {
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|&byte| byte == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normal_and_familiar_forms() {
        let digest = format!("@sha256:{HEX}");
        let cases = [
            ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "ubuntu:24.04"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("user/app", "docker.io/user/app", "user/app"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            (
                "ghcr.io/a/b__c/d-e--f.g:v1.0_x-y",
                "ghcr.io/a/b__c/d-e--f.g:v1.0_x-y",
                "ghcr.io/a/b__c/d-e--f.g:v1.0_x-y",
            ),
            ("FOO/bar", "FOO/bar", "FOO/bar"),
            (
                &format!("a:t{digest}"),
                &format!("docker.io/library/a:t{digest}"),
                &format!("a:t{digest}"),
            ),
            (
                &format!("r.io/a{digest}"),
                &format!("r.io/a{digest}"),
                &format!("r.io/a{digest}"),
            ),
        ];
        for (text, normal, familiar) in cases {
            let reference: Reference = text.parse().unwrap_or_else(|err| panic!("{text}: {err}"));
            assert_eq!(reference.to_string(), normal, "normal form of {text}");
            assert_eq!(reference.familiar(), familiar, "familiar form of {text}");
            assert_eq!(normal.parse(), Ok(reference.clone()), "reading {normal} back");
            assert_eq!(familiar.parse(), Ok(reference), "reading {familiar} back");
        }
    }

    #[test]
    fn bad_references() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a:-x",
            "a:b:c",
            "a@",
            "a@sha256:12",
            "a@md5:00",
            "Ubuntu",
            "a/B",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a.",
            "[::1/a",
            "[]/a",
            "[::1]x/a",
            "r.io:/a",
            "r.io:x/a",
            "-r.io/a",
            "r..io/a",
            "a b",
            "ä",
            HEX,
            &long,
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(text.parse::<Reference>().is_err(), "parsing {text:?}");
        }
        assert!(matches!(
            "a/B".parse::<Reference>(),
            Err(ParseReferenceError::Uppercase(_))
        ));
    }

    #[test]
    fn default_tag_and_auth_key() {
        let reference: Reference = "ubuntu".parse().expect("reference");
        assert_eq!(reference.auth_key(), "https://index.docker.io/v1/");
        let pinned = reference.clone().with_digest(Sha256Digest::of(b""));
        assert_eq!(reference.with_default_tag().tag(), Some("latest"));
        assert_eq!(pinned.with_default_tag().tag(), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_display_is_stable(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}

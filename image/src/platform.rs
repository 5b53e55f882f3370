//! Platforms: parsing, normal forms and matching as containerd does them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, a CPU architecture and its variant, in Go's words. Fields are written in OCI's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// For Windows.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// For Windows.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Such as `v7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// A text that names no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no platform: {problem}")]
pub struct ParsePlatformError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// A platform from its parts, in normal form.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalize_architecture(architecture, variant);
        Self {
            architecture,
            os: normalize_os(os),
            variant,
            ..Self::default()
        }
    }

    /// The platform this program was built for.
    pub fn host() -> Self {
        Self::new("linux", host_architecture(), "")
    }

    /// The normal form: `x86_64` becomes `amd64`, `arm64/v8` becomes `arm64`, `arm` becomes `arm/v7`.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = normalize_architecture(&self.architecture, &self.variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Self {
            architecture,
            os: normalize_os(&self.os),
            os_version: self.os_version.clone(),
            os_features,
            variant,
        }
    }

    /// Whether something made for `other` is exactly for this platform, whatever the spelling.
    pub fn is_same(&self, other: &Self) -> bool {
        let (own, other) = (self.normalized(), other.normalized());
        own.os == other.os
            && own.architecture == other.architecture
            && own.variant == other.variant
            && (own.os_version.is_empty() || other.os_version.is_empty() || own.os_version == other.os_version)
            && other
                .os_features
                .iter()
                .all(|feature| own.os_features.contains(feature))
    }

    /// What this platform can run, best first: itself, then older variants, then the 32-bit architecture.
    pub fn fallbacks(&self) -> Vec<Self> {
        let own = self.normalized();
        let like = |architecture: &str, variant: String| Self {
            architecture: architecture.to_owned(),
            variant,
            ..own.clone()
        };
        let number = |variant: &str| variant.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok());
        match own.architecture.as_str() {
            "amd64" => {
                let newest = number(&own.variant).unwrap_or(1);
                let mut list = vec![own.clone()];
                // The plain spelling means v1.
                list.extend((1..newest).rev().map(|version| {
                    like(
                        "amd64",
                        if version == 1 {
                            String::new()
                        } else {
                            format!("v{version}")
                        },
                    )
                }));
                list.push(like("386", String::new()));
                list
            }
            "arm" => {
                let mut list = vec![own.clone()];
                let newest = number(&own.variant).unwrap_or(5);
                list.extend((5..newest).rev().map(|version| like("arm", format!("v{version}"))));
                list
            }
            "arm64" => {
                let mut list: Vec<_> = arm64_variants(&own.variant)
                    .into_iter()
                    .map(|variant| like("arm64", variant))
                    .collect();
                if list.is_empty() {
                    list.push(own.clone());
                }
                list.extend((5..=8).rev().map(|version| like("arm", format!("v{version}"))));
                list
            }
            _ => vec![own],
        }
    }

    /// The position of the candidate that suits this platform best; `None` when nothing does. The first of equals wins.
    pub fn best_of<'a>(&self, candidates: impl Iterator<Item = Option<&'a Self>>) -> Option<usize> {
        let candidates: Vec<_> = candidates.collect();
        self.fallbacks().iter().find_map(|wanted| {
            candidates
                .iter()
                .position(|candidate| candidate.is_some_and(|candidate| wanted.is_same(candidate)))
        })
    }

    /// The name of this platform's folder in a split `local` or `tar` export.
    pub fn folder(&self) -> String {
        self.to_string().replace('/', "_")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        f.write_str(&self.os)?;
        for part in [&self.architecture, &self.variant] {
            if !part.is_empty() {
                write!(f, "/{part}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Reads `os`, `arch`, `os/arch` or `os/arch/variant`; what is missing is the host's.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |problem| ParsePlatformError {
            text: text.to_owned(),
            problem,
        };
        if text.contains('*') {
            return Err(fail("wildcards are not supported"));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        let (os, os_version) = split_os(parts[0]).ok_or_else(|| fail("the operating system is malformed"))?;
        if !parts[1..].iter().all(is_word) || !is_word(&os) {
            return Err(fail("its parts are letters, digits, `_`, `.` and `-`"));
        }
        let mut platform = match parts[..] {
            [word] => {
                let os_name = normalize_os(os);
                let (architecture, variant) = normalize_architecture(word, "");
                if KNOWN_OS.contains(&os_name.as_str()) {
                    Self::new(&os_name, host_architecture(), "")
                } else if KNOWN_ARCHITECTURES.contains(&architecture.as_str()) {
                    Self::new("linux", &architecture, &variant)
                } else {
                    return Err(fail("unknown operating system or architecture"));
                }
            }
            [_, architecture] => Self::new(os, architecture, ""),
            [_, architecture, variant] => Self::new(os, architecture, variant),
            _ => return Err(fail("expected `OS/ARCH[/VARIANT]`")),
        };
        os_version.clone_into(&mut platform.os_version);
        Ok(platform)
    }
}

/// Splits `windows(10.0.17763)`.
fn split_os(part: &str) -> Option<(&str, &str)> {
    match part.split_once('(') {
        None => Some((part, "")),
        Some((os, rest)) => Some((os, rest.strip_suffix(')')?)),
    }
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "" => "linux".to_owned(),
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normalize_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", other) => ("arm64", other),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

/// The arm64 variants that run on this one, best first: `v9.x` implies `v8.(x+5)`.
fn arm64_variants(variant: &str) -> Vec<String> {
    let (major, minor) = match variant {
        "" => (8, 0),
        _ => {
            let Some(version) = variant.strip_prefix('v') else {
                return Vec::new();
            };
            let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
            match (major.parse(), minor.parse()) {
                (Ok(major @ (8 | 9)), Ok(minor @ 0..=9)) => (major, minor),
                _ => return Vec::new(),
            }
        }
    };
    let spell = |major: u32, minor: u32| match (major, minor) {
        (8, 0) => String::new(),
        (9, 0) => "v9".to_owned(),
        (major, minor) => format!("v{major}.{minor}"),
    };
    let mut list: Vec<_> = (0..=minor).rev().map(|minor| spell(major, minor)).collect();
    if major == 9 {
        list.extend((0..=(minor + 5).min(9)).rev().map(|minor| spell(8, minor)));
    }
    list
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        let host = host_architecture();
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64/v8", "linux/arm64"),
            ("Linux/AArch64", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows/amd64"),
            ("linux", &format!("linux/{host}")),
        ];
        for (text, want) in cases {
            let platform: Platform = text.parse().unwrap_or_else(|err| panic!("{err}"));
            assert_eq!(platform.to_string(), want, "parsing {text}");
            assert_eq!(platform.normalized(), platform, "normal form of {text}");
        }
        for text in [
            "",
            "nothing",
            "linux/*",
            "linux/",
            "/amd64",
            "linux/a b",
            "a/b/c/d",
            "windows(1/amd64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "parsing {text:?}");
        }
    }

    #[test]
    fn best_match() {
        let cases: &[(&str, &[&str], Option<usize>)] = &[
            ("linux/amd64", &["linux/arm64", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/386"], Some(0)),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"], Some(1)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], Some(1)),
            ("linux/arm64", &["linux/arm/v6", "linux/arm/v7"], Some(1)),
            ("linux/arm64/v9", &["linux/arm64/v8.3", "linux/arm64/v8.5"], Some(1)),
            ("linux/arm64", &["linux/arm64/v8.1"], None),
            ("linux/riscv64", &["linux/amd64"], None),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
        ];
        for (wanted, offered, want) in cases {
            let wanted: Platform = wanted.parse().expect("platform");
            let offered: Vec<Platform> = offered.iter().map(|text| text.parse().expect("platform")).collect();
            assert_eq!(
                wanted.best_of(offered.iter().map(Some)),
                *want,
                "{wanted} of {offered:?}"
            );
        }
    }
}

//! One file a command, and what several of them need.

pub(crate) mod bake;
pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod doctor;
pub(crate) mod du;
pub(crate) mod export;
pub(crate) mod finish;
pub(crate) mod gc;
pub(crate) mod graph;
pub(crate) mod inspect;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod mount;
pub(crate) mod plan;
pub(crate) mod realize;
pub(crate) mod roots;
pub(crate) mod shell;
pub(crate) mod store;
pub(crate) mod trees;
pub(crate) mod why;

pub(crate) use finish::finish;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cbs_store::{Access, Store, TreeDigest};

use crate::args::Global;
use crate::record::find_root;

/// Opens the store the user means: the flag, else root's or the user's own.
pub(crate) fn open_store(global: &Global, access: Access) -> anyhow::Result<Store> {
    let path = match global.store.as_ref().or(global.settings.store.as_ref()) {
        Some(path) => path.clone(),
        None => default_store()?,
    };
    let path = std::path::absolute(&path).with_context(|| format!("store `{}`", path.display()))?;
    Store::open(&path, access).with_context(|| format!("cannot open store `{}`", path.display()))
}

/// Where the store is when nobody says.
pub(crate) fn default_store() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/cbs"));
    }
    let data = std::env::var_os("XDG_DATA_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let data = data
        .or_else(home)
        .context("neither XDG_DATA_HOME nor HOME says where the store is; use --store DIR")?;
    Ok(data.join("cbs"))
}

/// Writes to standard output; a closed pipe ends the program quietly, as in any filter.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// [`print`] for bytes.
pub(crate) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.context("cannot write to standard output"),
    }
}

/// The tree a reference names, and the path after its last colon: `NAME`, `NAME:PATH`, or a tree digest in its place.
/// A name may hold colons itself, so the longest name wins.
pub(crate) fn find_tree(store: &Store, reference: &str) -> anyhow::Result<(TreeDigest, String)> {
    let splits = std::iter::once((reference, "")).chain(
        reference
            .rmatch_indices(':')
            .map(|(colon, _)| (&reference[..colon], &reference[colon + 1..])),
    );
    let mut first = None;
    for (name, path) in splits {
        if let Ok(digest) = name.parse::<TreeDigest>() {
            return Ok((digest, path.to_owned()));
        }
        match find_root(store, name) {
            Ok(root) => {
                let Some(snapshot) = root.snapshots.first() else {
                    bail!("root `{name}` holds no tree")
                };
                return Ok((snapshot.tree, path.to_owned()));
            }
            Err(err) => drop(first.get_or_insert(err)),
        }
    }
    let err = first.unwrap_or_else(|| anyhow::anyhow!("an empty reference"));
    Err(err.context(format!("`{reference}` is neither a tree digest nor something realised")))
}

/// `48h`, `7d`, `1.5h`, `30m`, `10s`, `200ms`, or seconds.
pub(crate) fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        unit => bail!("`{text}`: unit `{unit}` is none of ms, s, m, h, d"),
    };
    let count: Option<f64> = digits.parse().ok();
    count
        .and_then(|count| Duration::try_from_secs_f64(count * unit).ok())
        .with_context(|| format!("`{text}` is no duration such as 48h or 1.5h"))
}

/// `20GB`, `512MiB`, `1000`: decimal units as docker, binary with an `i`.
pub(crate) fn parse_bytes(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        unit => bail!("`{text}`: unit `{unit}` is none of kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
    };
    let count: f64 = digits
        .parse()
        .with_context(|| format!("`{text}` is no size such as 20GB"))?;
    if !(count >= 0.0 && count.is_finite()) {
        bail!("`{text}` is no size such as 20GB");
    }
    Ok((count * unit as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("48h").unwrap(), Duration::from_secs(172_800));
        assert_eq!(parse_duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("1.5h").unwrap(), Duration::from_secs(5_400));
        assert_eq!(parse_duration("200ms").unwrap(), Duration::from_millis(200));
        for bad in ["", "-1s", "3 days", "nans", "infs", "1e99h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("2weeks").unwrap_err().to_string().contains("weeks"));
        assert_eq!(parse_bytes("1.5GB").unwrap(), 1_500_000_000);
        assert_eq!(parse_bytes("2KiB").unwrap(), 2_048);
        for bad in ["", "GB", "-1", "3parsecs", "nanB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}

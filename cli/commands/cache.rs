//! `cbs cache`: cache mounts, the folders that steps keep between builds.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cbs_image::codec::Decoder;
use cbs_store::{Access, CacheMount, Sharing, Store};
use clap::Subcommand;
use serde_json::{Value, json};

use super::{open_store, print};
use crate::args::Global;
use crate::progress::human_bytes;

/// `cbs cache`.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List cache mounts
    Ls {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write what a cache mount holds as a tar archive; waits until no step uses it
    Export {
        /// The id of the mount; without `id=` in the Dockerfile, its target
        id: String,
        /// Where to; `-` is standard output
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        output: String,
    },
    /// Replace what a cache mount holds by a tar archive, plain or compressed; waits until no step uses it
    Import {
        /// The id of the mount; it is made when there is none
        id: String,
        /// Where from; `-` is standard input
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        input: String,
    },
    /// Remove cache mounts
    Rm {
        /// Their ids
        #[arg(value_name = "ID", required_unless_present = "all")]
        ids: Vec<String>,
        /// All of them
        #[arg(short, long, conflicts_with = "ids")]
        all: bool,
    },
}

/// `cbs cache`.
pub(crate) fn run(global: &Global, command: &CacheCommand) -> anyhow::Result<ExitCode> {
    match command {
        CacheCommand::Ls { json } => list(&open_store(global, Access::ReadOnly)?, *json)?,
        CacheCommand::Export { id, output } => {
            let store = open_store(global, Access::ReadWrite)?;
            export(&store, &meant(&store, id)?, output)?;
        }
        CacheCommand::Import { id, input } => {
            let store = open_store(global, Access::ReadWrite)?;
            import(&store, &meant(&store, id)?, input)?;
        }
        CacheCommand::Rm { ids, all } => {
            let store = open_store(global, Access::ReadWrite)?;
            let ids = if *all {
                ids_of(&store)?
            } else {
                ids.iter().map(|id| meant(&store, id)).collect::<anyhow::Result<_>>()?
            };
            remove(&store, &ids)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ids_of(store: &Store) -> anyhow::Result<Vec<String>> {
    let mut ids: Vec<String> = store.cache_mounts()?.into_iter().map(|mount| mount.id).collect();
    ids.dedup();
    Ok(ids)
}

fn list(store: &Store, as_json: bool) -> anyhow::Result<()> {
    let mounts = store.cache_mounts()?;
    if as_json {
        let mounts = mounts
            .iter()
            .map(|mount| json!({ "id": mount.id, "slot": mount.slot, "bytes": mount.bytes, "lastUsed": mount.used }));
        return print(&format!("{}\n", mounts.collect::<Value>()));
    }
    let mut text = String::new();
    for mount in &mounts {
        let slot = if mount.slot == 0 {
            String::new()
        } else {
            format!("  (copy {})", mount.slot)
        };
        text.push_str(&format!(
            "{:>12}  {}{slot}\n",
            human_bytes(mount.bytes),
            shown(&mount.id)
        ));
    }
    print(&text)
}

/// An id as Dockerfiles have it: the namespace, mostly empty, and a slash stand before what is in the store.
fn shown(id: &str) -> &str {
    id.strip_prefix('/').unwrap_or(id)
}

/// The id in the store that a person means.
fn meant(store: &Store, id: &str) -> anyhow::Result<String> {
    let inside = format!("/{id}");
    let ids = ids_of(store)?;
    let is_whole = ids.iter().any(|known| known == id) && !ids.contains(&inside);
    Ok(if is_whole { id.to_owned() } else { inside })
}

/// The mount, for this process alone.
fn take(store: &Store, id: &str) -> anyhow::Result<CacheMount> {
    let mount = store.cache_mount(id, Sharing::Locked, &|| false)?;
    mount.context("the wait for the cache mount was given up")
}

fn must_exist(store: &Store, id: &str) -> anyhow::Result<()> {
    let ids = ids_of(store)?;
    if ids.iter().any(|known| known == id) {
        return Ok(());
    }
    let id = shown(id);
    match ids.as_slice() {
        [] => bail!("there is no cache mount `{id}`; this store has none"),
        ids => {
            let ids: Vec<&str> = ids.iter().map(|id| shown(id)).collect();
            bail!("there is no cache mount `{id}`; there are: {}", ids.join(", "))
        }
    }
}

fn export(store: &Store, id: &str, output: &str) -> anyhow::Result<()> {
    must_exist(store, id)?;
    let mount = take(store, id)?;
    let what = || format!("cannot write cache mount `{}` to `{output}`", shown(id));
    if output == "-" {
        let out = std::io::stdout().lock();
        return archive(&mount.path, out).with_context(what);
    }
    let file = File::create(output).with_context(what)?;
    archive(&mount.path, file).with_context(what)
}

/// Writes a folder as an archive: names in order, so that equal folders are equal archives. Sockets are left out.
fn archive(folder: &Path, out: impl Write) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(256 << 10, out));
    archive.mode(tar::HeaderMode::Complete);
    // Names of files with several, by device and inode.
    let mut linked: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let path = folder.join(&below);
        let meta = fs::symlink_metadata(&path).with_context(|| format!("`{}`", path.display()))?;
        let name = Path::new(".").join(&below);
        append(&mut archive, &path, &name, &meta, &mut linked).with_context(|| format!("`{}`", path.display()))?;
        if meta.is_dir() {
            let mut names = fs::read_dir(&path)
                .and_then(|entries| {
                    entries
                        .map(|entry| Ok(entry?.file_name()))
                        .collect::<Result<Vec<_>, _>>()
                })
                .with_context(|| format!("`{}`", path.display()))?;
            names.sort();
            waiting.extend(names.into_iter().rev().map(|name| below.join(name)));
        }
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &Path,
    name: &Path,
    meta: &Metadata,
    linked: &mut BTreeMap<(u64, u64), PathBuf>,
) -> std::io::Result<()> {
    let kind = meta.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_metadata(meta);
    header.set_size(0);
    if kind.is_dir() {
        return archive.append_data(&mut header, name, std::io::empty());
    }
    if kind.is_symlink() {
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    if meta.nlink() > 1 {
        match linked.get(&(meta.dev(), meta.ino())) {
            Some(first) => {
                header.set_entry_type(tar::EntryType::Link);
                return archive.append_link(&mut header, name, first);
            }
            None => drop(linked.insert((meta.dev(), meta.ino()), name.to_owned())),
        }
    }
    if kind.is_file() {
        header.set_size(meta.len());
        // A file that shrinks meanwhile would leave the archive out of step; nobody but us has the mount.
        return archive.append_data(&mut header, name, File::open(path)?.take(meta.len()));
    }
    if kind.is_socket() {
        return Ok(());
    }
    if kind.is_char_device() || kind.is_block_device() {
        header.set_device_major(rustix::fs::major(meta.rdev()))?;
        header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
    }
    archive.append_data(&mut header, name, std::io::empty())
}

fn import(store: &Store, id: &str, input: &str) -> anyhow::Result<()> {
    let lease = store.lease().context("cannot work in the store")?;
    let what = || format!("cannot unpack `{input}` into cache mount `{}`", shown(id));
    let source: Box<dyn Read> = if input == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(input).with_context(what)?)
    };
    // All of it is unpacked before anything is replaced: an archive that ends early changes nothing.
    let fresh = lease.new_dir("cache")?;
    let decoder = Decoder::new(BufReader::with_capacity(64 << 10, source)).with_context(what)?;
    let mut archive = tar::Archive::new(decoder);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    let (mut owner, mut mode) = ((0, 0), 0o755);
    for entry in archive.entries().with_context(what)? {
        let mut entry = entry.with_context(what)?;
        let header = entry.header();
        if entry
            .path()
            .with_context(what)?
            .components()
            .all(|part| part == Component::CurDir)
        {
            // The mount itself.
            let number = |id: std::io::Result<u64>| id.map(|id| u32::try_from(id).unwrap_or(0));
            owner = (
                number(header.uid()).with_context(what)?,
                number(header.gid()).with_context(what)?,
            );
            mode = header.mode().with_context(what)? & 0o7777;
        } else {
            entry.unpack_in(&fresh).with_context(what)?;
        }
    }
    let mut mount = take(store, id)?;
    for entry in fs::read_dir(&mount.path).with_context(what)? {
        let entry = entry.with_context(what)?;
        let path = lease.new_dir("old")?;
        fs::rename(entry.path(), path.join("it")).with_context(what)?;
        lease.discard(path);
    }
    for entry in fs::read_dir(&fresh).with_context(what)? {
        let entry = entry.with_context(what)?;
        fs::rename(entry.path(), mount.path.join(entry.file_name())).with_context(what)?;
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&mount.path, Some(owner.0), Some(owner.1)).with_context(what)?;
    }
    fs::set_permissions(&mount.path, fs::Permissions::from_mode(mode)).with_context(what)?;
    mount.seeded()?;
    Ok(())
}

fn remove(store: &Store, ids: &[String]) -> anyhow::Result<()> {
    for id in ids {
        must_exist(store, id)?;
        let removal = store.remove_cache_mount(id)?;
        if removal.busy > 0 {
            bail!(
                "cache mount `{}` is used by a running step; try again when that has ended",
                shown(id)
            );
        }
    }
    Ok(())
}

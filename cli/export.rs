//! From a realised result to what an output asks for. Builds and `cbs export` share it.

use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cbs_image::ImageError;
use cbs_image::codec::{Compression, Pool};
use cbs_image::export::{
    ArchiveKind, AssembledImage, Destination as Place, ExportContext, ExportTime, ImageAnnotations, ImageToExport,
    IndexUse, LocalMode, LocalOptions, Owners, PlatformImage, PlatformSplit, PushNaming, PushOptions, RootfsOptions,
    RootfsTime, assemble, push, write_archive, write_layout, write_local, write_rootfs_tar,
};
use cbs_image::layer::{LayerOptions, Recompress};
use cbs_image::manifest::{Annotations, MediaTypes};
use cbs_image::progress::Progress;
use cbs_image::reference::Reference;
use cbs_store::Snapshot;
use serde_json::{Map, Value};

use crate::epoch::{Epoch, EpochOrigin};
use crate::output::{Destination, Output, OutputKind};
use crate::progress::{Task, TaskProgress};
use crate::record::{AnnotationRecord, Record};
use crate::session::Session;

/// A realised result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Realised<'a> {
    /// All about it.
    pub(crate) record: &'a Record,
    /// One for each platform of the record.
    pub(crate) snapshots: &'a [Snapshot],
    /// What tells its progress from that of others: `[app] `, or nothing.
    pub(crate) label: &'a str,
}

/// Does what an output asks for. Answers the metadata of the image, when there is one.
pub(crate) fn export(
    session: &Session,
    realised: Realised<'_>,
    output: &Output,
    wants_digest: bool,
) -> anyhow::Result<Map<String, Value>> {
    output.check(realised.record.names.len())?;
    let is_pushed = output.flag("push", false)?;
    let what = match output.kind {
        OutputKind::CacheOnly => return Ok(Map::new()),
        OutputKind::Image if !is_pushed && !wants_digest => return Ok(Map::new()),
        OutputKind::Tar => "exporting to tar archive",
        OutputKind::Local => "exporting to client directory",
        OutputKind::Oci => "exporting to oci image format",
        OutputKind::Docker => "exporting to docker image format",
        OutputKind::Image => "exporting to image",
    };
    refuse_terminal(output)?;
    let task = Task::begin(&session.display.events(), &format!("{}{what}", realised.label));
    let progress = Arc::new(task.progress());
    let result = match output.kind {
        OutputKind::Tar | OutputKind::Local => rootfs(session, realised, output).map(|()| Map::new()),
        _ => image(session, realised, output, &progress),
    };
    task.end(result.as_ref().err().map(|err| crate::failure::chain(err.as_ref())));
    session.check_interrupted()?;
    result
}

fn refuse_terminal(output: &Output) -> anyhow::Result<()> {
    if output.dest == Some(Destination::Stdout) && std::io::stdout().is_terminal() {
        bail!("an archive is not written to a terminal; give a file with dest=… or redirect standard output");
    }
    Ok(())
}

fn image(
    session: &Session,
    realised: Realised<'_>,
    output: &Output,
    progress: &Arc<TaskProgress>,
) -> anyhow::Result<Map<String, Value>> {
    let to_export = image_to_export(realised, output)?;
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let pool = Pool::new(threads).context("cannot start threads")?;
    let cancelled = || session.cancel.is_cancelled();
    let context = ExportContext {
        store: &session.store,
        lease: &session.lease,
        pool: &pool,
        progress: progress.as_ref(),
        cancelled: &cancelled,
    };
    let assembled = assemble(&context, &to_export)?;
    let metadata = assembled.metadata()?;
    match output.kind {
        OutputKind::Image => {
            if output.flag("push", false)? {
                push_image(session, &assembled, output, progress)?;
            }
        }
        kind => {
            restore_layers(session, &assembled)?;
            write_image(session, &assembled, output, kind)?;
        }
    }
    Ok(metadata)
}

fn push_image(
    session: &Session,
    image: &AssembledImage,
    output: &Output,
    progress: &Arc<TaskProgress>,
) -> anyhow::Result<()> {
    let naming = if output.flag("push-by-digest", false)? {
        PushNaming::DigestOnly
    } else {
        PushNaming::Tags
    };
    let options = PushOptions {
        naming,
        ..PushOptions::default()
    };
    let progress: Arc<dyn Progress> = Arc::clone(progress) as Arc<dyn Progress>;
    session.runtime.block_on(async {
        tokio::select! {
            result = push(&session.images, image, &options, progress) => Ok(result?),
            () = session.cancel.cancelled() => Err(ImageError::Cancelled.into()),
        }
    })
}

/// Brings back the bytes of pulled layers that were collected.
fn restore_layers(session: &Session, image: &AssembledImage) -> anyhow::Result<()> {
    for blob in image.missing_layers(&session.store)? {
        session.runtime.block_on(async {
            tokio::select! {
                result = session.images.restore(&blob) => result,
                () = session.cancel.cancelled() => Err(ImageError::Cancelled),
            }
        })?;
    }
    Ok(())
}

fn write_image(session: &Session, image: &AssembledImage, output: &Output, kind: OutputKind) -> anyhow::Result<()> {
    let archive = if kind == OutputKind::Docker {
        ArchiveKind::Docker
    } else {
        ArchiveKind::Oci
    };
    let store = &session.store;
    match &output.dest {
        Some(Destination::Path(path)) if !output.flag("tar", true)? => write_layout(store, image, path)?,
        Some(Destination::Path(path)) => {
            make_parent(path)?;
            write_archive(store, image, archive, Place::File(path))?;
        }
        Some(Destination::Stdout) => {
            write_archive(store, image, archive, Place::Stream(&mut std::io::stdout().lock()))?;
        }
        None => load_into_docker(|out| Ok(write_archive(store, image, archive, Place::Stream(out))?))?,
    }
    Ok(())
}

/// Gives the archive to the docker engine.
fn load_into_docker(write: impl FnOnce(&mut dyn std::io::Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut child = Command::new("docker")
        .args(["image", "load"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run `docker image load`; give dest=FILE to write an archive")?;
    let written = match child.stdin.take() {
        Some(mut stdin) => write(&mut stdin),
        None => Ok(()),
    };
    let status = child.wait().context("`docker image load`")?;
    if !status.success() {
        bail!("`docker image load` failed: {status}");
    }
    written
}

fn make_parent(path: &Path) -> anyhow::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))
        }
        _ => Ok(()),
    }
}

fn rootfs(session: &Session, realised: Realised<'_>, output: &Output) -> anyhow::Result<()> {
    let record = realised.record;
    let roots = record
        .platforms
        .iter()
        .zip(realised.snapshots)
        .map(|(platform, snapshot)| (platform.platform.clone(), snapshot.tree));
    let epoch = epoch(record, output)?;
    let splits = output.flag("platform-split", record.platforms.len() > 1 || record.index)?;
    let options = RootfsOptions {
        roots: roots.collect(),
        platform_split: if splits {
            PlatformSplit::Folders
        } else {
            PlatformSplit::Together
        },
        time: match epoch.origin {
            EpochOrigin::Given => RootfsTime::Set(epoch.seconds),
            EpochOrigin::Default => RootfsTime::Keep,
        },
    };
    match (output.kind, &output.dest) {
        (OutputKind::Tar, Some(Destination::Path(path))) => {
            make_parent(path)?;
            write_rootfs_tar(&session.store, &options, Place::File(path))?;
        }
        (OutputKind::Tar, _) => {
            write_rootfs_tar(&session.store, &options, Place::Stream(&mut std::io::stdout().lock()))?;
        }
        (_, Some(Destination::Path(path))) => {
            let mode = match output.attrs.get("mode").map(String::as_str) {
                None | Some("copy") => LocalMode::Copy,
                Some("delete") => LocalMode::Delete,
                Some(mode) => bail!("output attribute mode={mode}: there are copy and delete"),
            };
            let options = LocalOptions {
                rootfs: options,
                mode,
                owners: Owners::Caller,
            };
            write_local(&session.store, &options, path, &|| session.cancel.is_cancelled())?;
        }
        _ => bail!("a folder cannot be written to standard output"),
    }
    Ok(())
}

/// The image as the output wants it.
fn image_to_export(realised: Realised<'_>, output: &Output) -> anyhow::Result<ImageToExport> {
    let record = realised.record;
    let epoch = epoch(record, output)?;
    let compression = output.compression()?;
    let rewrites = output.flag("rewrite-timestamp", epoch.origin == EpochOrigin::Default)?;
    let layers = LayerOptions {
        compression,
        level: output.compression_level()?,
        recompress: if output.flag("force-compression", false)? {
            Recompress::WhenDifferent
        } else {
            Recompress::Never
        },
        clamp_mtime: rewrites.then_some(epoch.seconds),
        made_mtime: Some(epoch.seconds),
    };
    let index = if record.index {
        IndexUse::Always
    } else {
        IndexUse::WhenNeeded
    };
    let is_oci = output.kind != OutputKind::Docker || compression == Compression::Zstd;
    let media_types = if output.flag("oci-mediatypes", is_oci)? {
        MediaTypes::Oci
    } else {
        MediaTypes::Docker
    };
    let mut annotations = ImageAnnotations::default();
    let mut platforms: Vec<PlatformImage> = record
        .platforms
        .iter()
        .zip(realised.snapshots)
        .map(|(platform, snapshot)| PlatformImage {
            platform: platform.platform.clone(),
            snapshot: snapshot.clone(),
            config: platform.config.clone(),
            base: platform.base.clone(),
            notes: Vec::new(),
            manifest_annotations: Annotations::new(),
            descriptor_annotations: Annotations::new(),
        })
        .collect();
    for annotation in record.annotations.iter().chain(&output_annotations(output)?) {
        annotate(&mut annotations, &mut platforms, annotation)?;
    }
    Ok(ImageToExport {
        platforms,
        index,
        names: names(record, output)?,
        media_types,
        annotations,
        layers,
        time: ExportTime {
            epoch: Some(epoch.seconds),
            now: epoch.seconds,
        },
    })
}

/// The time of the output, else that of the build.
fn epoch(record: &Record, output: &Output) -> anyhow::Result<Epoch> {
    Ok(match output.epoch()? {
        Some(seconds) => Epoch::choose(Some(seconds), None, None),
        None => record.epoch,
    })
}

/// The names of the output, else those of the target.
fn names(record: &Record, output: &Output) -> anyhow::Result<Vec<Reference>> {
    let mut names: Vec<Reference> = Vec::new();
    let own = record.names.iter().map(|name| name.parse::<Reference>());
    let own: Vec<Reference> = own.collect::<Result<_, _>>()?;
    let own = own.into_iter().map(|name| name.with_default_tag());
    for name in output.names()?.into_iter().chain(own) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// What annotations can be about.
const KINDS: [&str; 4] = ["manifest", "manifest-descriptor", "index", "index-descriptor"];

/// `annotation[-TYPE][[PLATFORM]].KEY=VALUE` attributes.
pub(crate) fn output_annotations(output: &Output) -> anyhow::Result<Vec<AnnotationRecord>> {
    let mut annotations = Vec::new();
    for (name, value) in &output.attrs {
        let Some(rest) = name.strip_prefix("annotation") else {
            continue;
        };
        let (head, key) = rest
            .split_once('.')
            .with_context(|| format!("output attribute `{name}` names no annotation"))?;
        let (kind, platform) = match head.strip_suffix(']').and_then(|head| head.split_once('[')) {
            Some((kind, platform)) => (kind, Some(platform.parse()?)),
            None => (head, None),
        };
        let kind = kind.strip_prefix('-').unwrap_or(kind);
        let kind = if kind.is_empty() { "manifest" } else { kind };
        if !KINDS.contains(&kind) {
            bail!(
                "output attribute `{name}`: annotation type `{kind}` is not known; there are {}",
                KINDS.join(", ")
            );
        }
        annotations.push(AnnotationRecord {
            kind: kind.to_owned(),
            platform,
            key: key.to_owned(),
            value: value.clone(),
        });
    }
    Ok(annotations)
}

fn annotate(
    all: &mut ImageAnnotations,
    platforms: &mut [PlatformImage],
    annotation: &AnnotationRecord,
) -> anyhow::Result<()> {
    let (key, value) = (annotation.key.clone(), annotation.value.clone());
    let is_manifest = annotation.kind == "manifest";
    match (annotation.kind.as_str(), &annotation.platform) {
        ("index", _) => drop(all.index.insert(key, value)),
        ("index-descriptor", _) => drop(all.index_descriptor.insert(key, value)),
        ("manifest", None) => drop(all.manifest.insert(key, value)),
        ("manifest-descriptor", None) => drop(all.manifest_descriptor.insert(key, value)),
        ("manifest" | "manifest-descriptor", Some(wanted)) => {
            for platform in platforms
                .iter_mut()
                .filter(|platform| platform.platform.is_same(wanted))
            {
                let annotations = if is_manifest {
                    &mut platform.manifest_annotations
                } else {
                    &mut platform.descriptor_annotations
                };
                annotations.insert(key.clone(), value.clone());
            }
        }
        (kind, _) => bail!("annotation type `{kind}` is not known"),
    }
    Ok(())
}

//! `cbs realize`: builds what references name, and keeps it under those names.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cbs_frontends::bake::{BakeOptions, LocalHost, NoFetcher, load};
use cbs_image::platform::Platform;
use cbs_solver::read_definition;

use super::bake::{has_bake_file, has_compose_file, root_file};
use super::finish;
use crate::args::Global;
use crate::build_args::{BuildArgs, RealizeArgs};
use crate::failure::Usage;
use crate::output::{Output, OutputKind, csv_fields};
use crate::planned::{Planned, StandardInput, bake_options, refuse_flags};
use crate::record::absolute;
use crate::session::Session;
use crate::target::{BuildTarget, Work};

/// `cbs realize`.
pub(crate) fn run(global: &Global, args: &RealizeArgs) -> anyhow::Result<ExitCode> {
    // Everything local is read before anything starts.
    let planned = plan(global, args)?;
    let session = Session::start(global, args.common.progress, args.common.network())?;
    let mut common = args.common.clone();
    common.recheck |= args.check;
    finish(session, planned, &common, &finish::Answers::PerTarget)
}

/// The targets of all references.
pub(crate) fn plan(global: &Global, args: &RealizeArgs) -> anyhow::Result<Planned> {
    refuse_flags(&args.common)?;
    let mut planned = Planned::new(global);
    for reference in &args.references {
        add(&mut planned, reference, args).with_context(|| format!("`{reference}`"))?;
    }
    Ok(planned)
}

/// What a reference is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A definition in LLB.
    Definition(PathBuf),
    /// A bake file, or a folder with some.
    Bake(PathBuf),
    /// A Dockerfile and its folder.
    Dockerfile { file: Option<PathBuf>, context: String },
}

fn add(planned: &mut Planned, reference: &str, args: &RealizeArgs) -> anyhow::Result<()> {
    let (path, target) = split(reference);
    match kind(path)? {
        Kind::Definition(path) => add_definition(planned, &path, args),
        Kind::Bake(path) => add_bake(planned, &path, target, args),
        Kind::Dockerfile { file, context } => {
            if !args.set.is_empty() || !args.var.is_empty() {
                bail!(Usage(
                    "--set and --var are for bake files; this is a Dockerfile".to_owned()
                ));
            }
            let root = absolute(reference).unwrap_or_else(|| reference.to_owned());
            let build = BuildArgs {
                context,
                file: file.map(|file| file.to_string_lossy().into_owned()),
                target: target.map(str::to_owned),
                output: args.output.clone(),
                platform: args.platform.clone(),
                common: args.common.clone(),
                ..BuildArgs::default()
            };
            planned.add_build(&build, &StandardInput::default(), root)?;
            // The targets of several references must not be mistaken for each other.
            if let Some(target) = planned.targets.last_mut() {
                target.name = reference.to_owned();
            }
            Ok(())
        }
    }
}

/// `FILE#TARGET`; a `#` in the name of a file that exists is part of it, and so is one in a URL.
fn split(reference: &str) -> (&str, Option<&str>) {
    if reference.contains("://") || Path::new(reference).exists() {
        return (reference, None);
    }
    match reference.rsplit_once('#') {
        Some((path, target)) if !target.is_empty() => (if path.is_empty() { "." } else { path }, Some(target)),
        _ => (reference, None),
    }
}

fn kind(path: &str) -> anyhow::Result<Kind> {
    if path.contains("://") || path.starts_with("git@") {
        return Ok(Kind::Dockerfile {
            file: None,
            context: path.to_owned(),
        });
    }
    let file = PathBuf::from(path);
    let found = std::fs::metadata(&file).with_context(|| format!("cannot find `{path}`"))?;
    if found.is_dir() {
        let has_dockerfile = ["Dockerfile", "dockerfile"]
            .iter()
            .any(|name| file.join(name).is_file());
        return match (has_bake_file(&file), has_dockerfile) {
            (true, _) => Ok(Kind::Bake(file)),
            (false, true) => Ok(Kind::Dockerfile {
                file: None,
                context: path.to_owned(),
            }),
            (false, false) if has_compose_file(&file) => Ok(Kind::Bake(file)),
            _ => bail!("there is no bake file and no Dockerfile in `{path}`"),
        };
    }
    Ok(match file.extension().and_then(|extension| extension.to_str()) {
        Some("pb") => Kind::Definition(file),
        Some("hcl" | "json" | "yml" | "yaml") => Kind::Bake(file),
        _ => {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            let context = folder.unwrap_or(Path::new(".")).to_string_lossy().into_owned();
            Kind::Dockerfile {
                file: Some(file),
                context,
            }
        }
    })
}

fn add_definition(planned: &mut Planned, path: &Path, args: &RealizeArgs) -> anyhow::Result<()> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{shown}`"))?;
    let definition = read_definition(&bytes).with_context(|| format!("`{shown}` is no definition"))?;
    let platform = match args.platform.as_slice() {
        [] => Platform::host(),
        [only] => only.parse()?,
        _ => bail!(Usage("a definition is for one platform".to_owned())),
    };
    let mut outputs = args
        .output
        .iter()
        .map(|text| Output::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    if outputs.is_empty() {
        outputs.push(Output {
            kind: OutputKind::Image,
            dest: None,
            attrs: Default::default(),
        });
    }
    planned.targets.push(BuildTarget {
        root: absolute(&shown).unwrap_or_else(|| shown.clone()),
        name: shown,
        work: Work::Definition { definition, platform },
        linked: Default::default(),
        only_linked: false,
        outputs,
        names: Vec::new(),
        annotations: Vec::new(),
        folder: None,
        call: None,
    });
    Ok(())
}

/// A bake file is seen from its own folder, wherever the command is called.
fn add_bake(planned: &mut Planned, path: &Path, target: Option<&str>, args: &RealizeArgs) -> anyhow::Result<()> {
    let path = std::path::absolute(path)?;
    let (folder, files) = if path.is_dir() {
        (path.as_path(), Vec::new())
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (path.parent().unwrap_or(Path::new("/")), vec![name])
    };
    let common = bake_options(&args.common)?;
    let mut overrides = args.set.clone();
    for output in &args.output {
        overrides.push(format!("*.output={}", from_here(output)?));
    }
    if !args.platform.is_empty() {
        overrides.push(format!("*.platform={}", args.platform.join(",")));
    }
    let options = BakeOptions {
        files,
        targets: target.map(str::to_owned).into_iter().collect(),
        overrides,
        variables: args.var.clone(),
        working_directory: folder.to_string_lossy().into_owned(),
        ..common
    };
    let bake = load(&options, &LocalHost, &NoFetcher)?;
    let file = root_file(&options);
    planned.add_bake(&bake, &options, |target| format!("{file}#{target}"))
}

/// An output whose destination is seen from the working directory of the command.
fn from_here(output: &str) -> anyhow::Result<String> {
    if output == "-" {
        return Ok(output.to_owned());
    }
    let here = |path: &str| -> anyhow::Result<String> {
        let path = std::path::absolute(path).with_context(|| format!("output `{output}`"))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let fields = csv_fields(output)?;
    let fields = match fields.as_slice() {
        [only] if !only.contains('=') => vec!["type=local".to_owned(), format!("dest={}", here(only)?)],
        _ => fields
            .into_iter()
            .map(|field| match field.strip_prefix("dest=") {
                Some("-" | "") | None => Ok(field),
                Some(path) => Ok(format!("dest={}", here(path)?)),
            })
            .collect::<anyhow::Result<_>>()?,
    };
    let quoted = fields.iter().map(|field| {
        if field.contains([',', '"']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    });
    Ok(quoted.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_and_known() {
        let folder = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
        for name in ["a.hcl", "graph.pb", "Dockerfile", "odd#name.hcl"] {
            std::fs::write(at(name), "").expect("write");
        }
        assert_eq!(split(&at("odd#name.hcl")), (at("odd#name.hcl").as_str(), None));
        let written = format!("{}#app", at("a.hcl"));
        assert_eq!(split(&written), (at("a.hcl").as_str(), Some("app")));
        assert_eq!(kind(&at("a.hcl")).expect("bake"), Kind::Bake(at("a.hcl").into()));
        assert_eq!(
            kind(&at("graph.pb")).expect("llb"),
            Kind::Definition(at("graph.pb").into())
        );
        assert!(matches!(
            kind(&at("")).expect("a folder"),
            Kind::Dockerfile { file: None, .. }
        ));
        assert!(kind(&at("nothing")).is_err());
    }

    #[test]
    fn destinations_are_seen_from_here() {
        let here = std::env::current_dir().expect("cwd");
        let here = here.to_str().expect("text");
        assert_eq!(
            from_here("type=oci,dest=a.tar").expect("parses"),
            format!("type=oci,dest={here}/a.tar")
        );
        assert_eq!(from_here("out").expect("parses"), format!("type=local,dest={here}/out"));
        assert_eq!(from_here("type=oci,dest=/x").expect("parses"), "type=oci,dest=/x");
        assert_eq!(from_here("type=tar,dest=-").expect("parses"), "type=tar,dest=-");
    }
}

//! Loading Compose files into one document: filled in, with what they include and extend, and paths sorted out.

use std::collections::BTreeMap;
use std::io;

use super::dotenv;
use super::interpolate::substitute_tree;
use super::merge::{canonical, extend_service, forget, merge, merge_resource};
use super::yaml::{self, Map, Path, Yaml};
use crate::bake::host::Host;
use crate::bake::paths::{clean, join, parent, resolve};

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// What loading needs from outside.
pub(super) struct Loader<'h> {
    pub(super) host: &'h dyn Host,
    pub(super) working_directory: &'h str,
    pub(super) home: &'h str,
}

/// A file to load.
pub(super) struct Source {
    /// Where it is, seen from the working directory.
    pub(super) name: String,
    pub(super) text: String,
}

/// The folders of a set of files, both seen from somewhere else.
struct Folders {
    /// What paths in the files are relative to, seen from the files that include these.
    relative: String,
    /// What names of further files are relative to, seen from the working directory.
    project: String,
}

/// Longer chains of includes or extended services are refused.
const MAX_CHAIN: usize = 100;

impl Loader<'_> {
    /// Loads the files that a caller names; their paths are relative to the working directory.
    ///
    /// # Errors
    /// The name of a file and what is wrong in it.
    pub(super) fn load(&self, files: &[Source], variables: &Variables) -> Result<Map, (String, String)> {
        let folders = Folders {
            relative: String::new(),
            project: String::new(),
        };
        self.load_model(files, &folders, variables, &[])
    }

    fn load_model(
        &self,
        files: &[Source],
        folders: &Folders,
        variables: &Variables,
        included: &[String],
    ) -> Result<Map, (String, String)> {
        let mut model = Map::new();
        for file in files {
            let fail = |message: String| (file.name.clone(), message);
            let mut included = included.to_vec();
            included.push(file.name.clone());
            for document in yaml::parse(&file.text).map_err(fail)? {
                let (mut own, forgotten) = filled_in(document, variables).map_err(fail)?;
                self.include(&mut own, &forgotten, folders, variables, &included)
                    .map_err(|(inner, message)| {
                        if inner.is_empty() {
                            fail(message)
                        } else {
                            (inner, message)
                        }
                    })?;
                forget(&mut model, &forgotten);
                let mut extending = Extending {
                    loader: self,
                    project: &folders.project,
                    variables,
                };
                extending.apply(&mut own, &forgotten, &file.name).map_err(fail)?;
                merge(&mut model, own).map_err(fail)?;
                canonical(&mut model).map_err(fail)?;
            }
        }
        set_defaults(&mut model);
        self.resolve_paths(&mut model, &folders.relative);
        Ok(model)
    }

    fn include(
        &self,
        model: &mut Map,
        forgotten: &[Path],
        folders: &Folders,
        variables: &Variables,
        included: &[String],
    ) -> Result<(), (String, String)> {
        let here = |message: String| (String::new(), message);
        let entries = match model.remove("include") {
            None | Some(Yaml::Null) => return Ok(()),
            Some(Yaml::List(entries)) => entries,
            Some(other) => return Err(here(format!("include must be a list, not {}", other.kind()))),
        };
        if included.len() > MAX_CHAIN {
            return Err(here(format!("the chain of includes is longer than {MAX_CHAIN}")));
        }
        for entry in entries {
            let imported = self.included_model(entry, folders, variables, included)?;
            for kind in ["services", "secrets"] {
                let Some(Yaml::Map(resources)) = imported.get(kind).cloned() else {
                    continue;
                };
                let Yaml::Map(own) = model.entry(String::from(kind)).or_insert_with(|| Yaml::Map(Map::new())) else {
                    return Err(here(format!("{kind} must be a mapping")));
                };
                for (name, resource) in resources {
                    let merged = match own.remove(&name) {
                        None => resource,
                        Some(conflict) => {
                            let mut holder = Map::from([(name.clone(), resource)]);
                            let below: Vec<Path> = forgotten
                                .iter()
                                .filter(|path| path.first().is_some_and(|first| first == kind))
                                .map(|path| path[1..].to_vec())
                                .collect();
                            forget(&mut holder, &below);
                            let resource = holder.remove(&name).unwrap_or(Yaml::Null);
                            merge_resource(resource, conflict, kind, &name).map_err(here)?
                        }
                    };
                    own.insert(name, merged);
                }
            }
        }
        Ok(())
    }

    fn included_model(
        &self,
        entry: Yaml,
        folders: &Folders,
        variables: &Variables,
        included: &[String],
    ) -> Result<Map, (String, String)> {
        let here = |message: &str| (String::new(), String::from(message));
        let mut entry = match entry {
            path @ Yaml::Text(_) => Map::from([(String::from("path"), path)]),
            Yaml::Map(entry) => entry,
            _ => return Err(here("an entry of include must be a path or a mapping")),
        };
        let mut texts = |key: &str| match entry.remove(key) {
            None | Some(Yaml::Null) => Ok(Vec::new()),
            Some(Yaml::Text(text)) => Ok(vec![text]),
            Some(Yaml::List(items)) => {
                let texts: Option<Vec<String>> = items.iter().map(|item| item.as_text().map(String::from)).collect();
                texts.ok_or_else(|| here("paths in include must be strings"))
            }
            Some(_) => Err(here("paths in include must be strings")),
        };
        let paths = texts("path")?;
        let directory = texts("project_directory")?
            .into_iter()
            .next()
            .filter(|path| !path.is_empty());
        let env_files = texts("env_file")?;
        let Some(first) = paths.first() else {
            return Err(here("an entry of include needs a path"));
        };
        let inner = match &directory {
            None => Folders {
                relative: parent(first),
                project: parent(&resolve(&folders.project, first)),
            },
            Some(path) => Folders {
                relative: clean(path),
                project: resolve(&folders.relative, path),
            },
        };
        let mut sources = Vec::new();
        for path in &paths {
            let name = resolve(&folders.project, path);
            if included.contains(&name) {
                return Err((
                    name.clone(),
                    format!("it includes itself: {} -> {name}", included.join(" -> ")),
                ));
            }
            let text = self.read(&name).map_err(|message| (name.clone(), message))?;
            sources.push(Source { name, text });
        }
        let mut own = variables.clone();
        let env_files = if env_files.is_empty() {
            let usual = join(&inner.project, ".env");
            if self.is_file(&usual) { vec![usual] } else { Vec::new() }
        } else {
            let named = env_files.into_iter().filter(|path| path != "/dev/null");
            named.map(|path| resolve(&folders.relative, &path)).collect()
        };
        for name in env_files {
            let fail = |message: String| (name.clone(), message);
            let text = self.read(&name).map_err(fail)?;
            let mut found = Variables::new();
            dotenv::parse_into(&text, &mut found, &|name| variables.get(name).cloned()).map_err(fail)?;
            for (name, value) in found {
                own.entry(name).or_insert(value);
            }
        }
        self.load_model(&sources, &inner, &own, included)
    }

    pub(super) fn read(&self, name: &str) -> Result<String, String> {
        let content = self
            .host
            .read(&resolve(self.working_directory, name))
            .map_err(|error: io::Error| format!("it cannot be read: {error}"))?;
        String::from_utf8(content).map_err(|_| String::from("it is not UTF-8 text"))
    }

    pub(super) fn is_file(&self, name: &str) -> bool {
        let kind = self.host.kind(&resolve(self.working_directory, name));
        matches!(kind, Ok(kind) if kind != crate::bake::host::FileKind::Directory)
    }

    /// Relative paths become relative to what the folder is relative to.
    fn resolve_paths(&self, model: &mut Map, folder: &str) {
        if let Some(Yaml::Map(services)) = model.get_mut("services") {
            for service in services.values_mut() {
                let Yaml::Map(service) = service else { continue };
                if let Some(Yaml::Map(build)) = service.get_mut("build") {
                    self.resolve_build(build, folder);
                }
                if let Some(Yaml::List(files)) = service.get_mut("env_file") {
                    for file in files {
                        if let Yaml::Map(file) = file {
                            self.resolve_text(file.get_mut("path"), folder);
                        }
                    }
                }
                if let Some(Yaml::Map(extends)) = service.get_mut("extends") {
                    self.resolve_text(extends.get_mut("file"), folder);
                }
            }
        }
        if let Some(Yaml::Map(secrets)) = model.get_mut("secrets") {
            for secret in secrets.values_mut() {
                if let Yaml::Map(secret) = secret {
                    self.resolve_text(secret.get_mut("file"), folder);
                }
            }
        }
    }

    fn resolve_build(&self, build: &mut Map, folder: &str) {
        let is_path = |context: &str| {
            const REMOTE: [&str; 3] = ["service:", "github.com/", "git@"];
            !context.contains("://") && !REMOTE.iter().any(|prefix| context.starts_with(prefix))
        };
        let contexts = match build.get_mut("additional_contexts") {
            Some(Yaml::Map(contexts)) => contexts.values_mut().collect(),
            _ => Vec::new(),
        };
        for context in contexts {
            if context.as_text().is_some_and(is_path) {
                self.resolve_text(Some(context), folder);
            }
        }
        if build.get("context").and_then(Yaml::as_text).is_some_and(is_path) {
            self.resolve_text(build.get_mut("context"), folder);
        }
        match build.get_mut("ssh") {
            Some(Yaml::Map(agents)) => agents
                .values_mut()
                .for_each(|path| self.resolve_text(Some(path), folder)),
            Some(Yaml::List(agents)) => {
                for agent in agents {
                    if let Some((id, path)) = agent.as_text().and_then(|text| text.split_once('=')) {
                        *agent = Yaml::Text(format!("{id}={}", self.path(path, folder)));
                    }
                }
            }
            _ => {}
        }
    }

    fn resolve_text(&self, value: Option<&mut Yaml>, folder: &str) {
        if let Some(Yaml::Text(path)) = value
            && !path.is_empty()
        {
            *path = self.path(path, folder);
        }
    }

    fn path(&self, path: &str, folder: &str) -> String {
        match path.strip_prefix('~') {
            Some(rest) => join(self.home, rest),
            None if path.starts_with('/') => String::from(path),
            None => join(folder, path),
        }
    }
}

/// The mapping of a document with its variables filled in.
fn filled_in(document: yaml::Document, variables: &Variables) -> Result<(Map, Vec<Path>), String> {
    let mut root = document.root;
    if !matches!(root, Yaml::Map(_)) {
        return Err(format!("the top level must be a mapping, not {}", root.kind()));
    }
    substitute_tree(&mut root, "", &|name| variables.get(name).cloned())?;
    let Yaml::Map(own) = root else {
        return Ok((Map::new(), Vec::new()));
    };
    Ok((own, document.forgotten))
}

fn set_defaults(model: &mut Map) {
    let Some(Yaml::Map(services)) = model.get_mut("services") else {
        return;
    };
    for service in services.values_mut() {
        if let Yaml::Map(service) = service
            && let Some(Yaml::Map(build)) = service.get_mut("build")
        {
            build
                .entry(String::from("context"))
                .or_insert_with(|| Yaml::Text(String::from(".")));
        }
    }
}

/// `extends`: services laid over others.
struct Extending<'l> {
    loader: &'l Loader<'l>,
    project: &'l str,
    variables: &'l Variables,
}

impl Extending<'_> {
    fn apply(&mut self, model: &mut Map, forgotten: &[Path], file: &str) -> Result<(), String> {
        let services = match model.get_mut("services") {
            Some(Yaml::Map(services)) => services,
            None | Some(Yaml::Null) => return Ok(()),
            Some(other) => return Err(format!("services must be a mapping, not {}", other.kind())),
        };
        let names: Vec<String> = services.keys().cloned().collect();
        for name in names {
            self.extend(&name, services, forgotten, file, &mut Vec::new())?;
        }
        Ok(())
    }

    /// Replaces a service by one with everything in it that it extends.
    fn extend(
        &mut self,
        name: &str,
        services: &mut Map,
        forgotten: &[Path],
        file: &str,
        chain: &mut Vec<(String, String)>,
    ) -> Result<(), String> {
        let service = match services.get(name) {
            None | Some(Yaml::Null) => return Ok(()),
            Some(Yaml::Map(service)) => service,
            Some(other) => return Err(format!("services.{name} must be a mapping, not {}", other.kind())),
        };
        let (base_name, base_file) = match service.get("extends") {
            None => return Ok(()),
            Some(Yaml::Text(base)) => (base.clone(), None),
            Some(Yaml::Map(extends)) => {
                let base = extends.get("service").and_then(Yaml::as_text);
                let base = base.ok_or_else(|| format!("services.{name}.extends needs the name of a service"))?;
                (
                    String::from(base),
                    extends.get("file").and_then(Yaml::as_text).map(String::from),
                )
            }
            Some(other) => {
                return Err(format!(
                    "services.{name}.extends must be a mapping or a string, not {}",
                    other.kind()
                ));
            }
        };
        let link = (String::from(file), String::from(name));
        if chain.contains(&link) {
            return Err(format!("service {name:?} extends itself, directly or through others"));
        }
        if chain.len() > MAX_CHAIN {
            return Err(format!(
                "the chain of services that {name:?} extends is longer than {MAX_CHAIN}"
            ));
        }
        chain.push(link);
        let unknown = || format!("service {name:?} extends {base_name:?}, which is not defined");
        let base = match &base_file {
            None => {
                if !services.contains_key(&base_name) {
                    return Err(unknown());
                }
                self.extend(&base_name, services, forgotten, file, chain)?;
                services.get(&base_name).cloned()
            }
            Some(other) => {
                let (mut others, forgotten) = self
                    .services_of(other)
                    .map_err(|message| format!("{other}: {message}"))?;
                if !others.contains_key(&base_name) {
                    return Err(format!("{} in {other}", unknown()));
                }
                self.extend(&base_name, &mut others, &forgotten, other, chain)?;
                others.remove(&base_name)
            }
        };
        chain.pop();
        let Some(Yaml::Map(service)) = services.remove(name) else {
            return Ok(());
        };
        let merged = match base {
            Some(Yaml::Map(base)) => {
                let mut holder = Map::from([(String::from(name), Yaml::Map(base))]);
                let below: Vec<Path> = forgotten
                    .iter()
                    .filter(|path| path.first().is_some_and(|first| first == "services"))
                    .map(|path| path[1..].to_vec())
                    .collect();
                forget(&mut holder, &below);
                let mut base = match holder.remove(name) {
                    Some(Yaml::Map(base)) => base,
                    _ => Map::new(),
                };
                extend_service(&mut base, service)?;
                base.remove("extends");
                base
            }
            _ => service,
        };
        services.insert(String::from(name), Yaml::Map(merged));
        Ok(())
    }

    /// The services of another file, with paths as seen from the files that extend them.
    fn services_of(&self, file: &str) -> Result<(Map, Vec<Path>), String> {
        let name = resolve(self.project, file);
        let text = self.loader.read(&name)?;
        let mut model = Map::new();
        let mut all_forgotten = Vec::new();
        for document in yaml::parse(&text)? {
            let (own, forgotten) = filled_in(document, self.variables)?;
            forget(&mut model, &forgotten);
            merge(&mut model, own)?;
            canonical(&mut model)?;
            all_forgotten.extend(forgotten);
        }
        self.loader.resolve_paths(&mut model, &parent(file));
        match model.remove("services") {
            Some(Yaml::Map(services)) => Ok((services, all_forgotten)),
            _ => Err(String::from("it has no services")),
        }
    }
}

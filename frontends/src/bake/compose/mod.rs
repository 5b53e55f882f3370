//! Compose files: services with a build become targets.
//!
//! ```text
//! text ─ yaml ─► tree ─ interpolate ─► include, extends, merge ─ model ─► services ─ target ─► targets
//! ```
//! What has nothing to do with building is not looked at, so files for any version of Compose can be read.

mod dotenv;
mod fields;
mod interpolate;
mod json;
mod merge;
mod model;
mod target;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;

pub use self::json::yaml_to_json;

use self::fields::Fields;
use self::model::{Loader, Source, Variables};
use self::yaml::{Map, Yaml};
use super::error::BakeError;
use super::host::Host;
use super::model::Group;
use super::options::BakeOptions;
use super::paths::{clean, resolve};
use super::program::{Config, is_valid_name};

/// A Compose file.
#[derive(Clone, Debug)]
pub(crate) struct ComposeFile {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Reading Compose files with the variables of the caller.
pub(crate) struct Compose<'h> {
    host: &'h dyn Host,
    options: &'h BakeOptions,
    variables: Variables,
}

impl<'h> Compose<'h> {
    /// Collects the variables: the environment, what `.env` adds to it, and what is given for this call.
    ///
    /// # Errors
    /// When `.env` is there and cannot be read.
    pub(crate) fn new(
        options: &'h BakeOptions,
        host: &'h dyn Host,
        given: &BTreeMap<String, String>,
    ) -> Result<Compose<'h>, BakeError> {
        const DOT_ENV: &str = ".env";
        let mut variables = if options.sees_environment() {
            options.environment.clone()
        } else {
            Variables::new()
        };
        let loader = Loader {
            host,
            working_directory: &options.working_directory,
            home: &options.home_directory,
        };
        if loader.is_file(DOT_ENV) {
            let fail = |reason: String| BakeError::Compose {
                file: String::from(DOT_ENV),
                reason,
            };
            let text = loader.read(DOT_ENV).map_err(fail)?;
            let mut found = Variables::new();
            dotenv::parse_into(&text, &mut found, &|name| variables.get(name).cloned()).map_err(fail)?;
            for (name, value) in found {
                variables.entry(name).or_insert(value);
            }
        }
        variables.extend(given.clone());
        Ok(Compose {
            host,
            options,
            variables,
        })
    }

    /// Makes sure that a file is a Compose file by itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, file: &ComposeFile) -> Result<(), BakeError> {
        let (model, _) = self.model(std::slice::from_ref(file))?;
        let fail = |reason: String| BakeError::Compose {
            file: file.name.clone(),
            reason,
        };
        let services = Services::new(&model).map_err(fail)?;
        services.check().map_err(fail)
    }

    /// Loads the files on top of each other.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn load(&self, files: &[ComposeFile]) -> Result<Config, BakeError> {
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let (model, variables) = self.model(files)?;
        let fail = |reason: String| BakeError::Compose {
            file: names.join(", "),
            reason,
        };
        self.config(&model, &variables).map_err(fail)
    }

    fn model(&self, files: &[ComposeFile]) -> Result<(Map, Variables), BakeError> {
        const PROJECT: &str = "COMPOSE_PROJECT_NAME";
        let sources: Vec<Source> = files
            .iter()
            .map(|file| Source {
                name: clean(&file.name),
                text: file.text.clone(),
            })
            .collect();
        let mut variables = self.variables.clone();
        let given = variables.get(PROJECT).cloned().filter(|name| !name.is_empty());
        let declared = sources
            .iter()
            .rev()
            .find_map(|source| project_name(&source.text, &variables));
        variables.insert(
            String::from(PROJECT),
            declared.or(given).unwrap_or_else(|| String::from("bake")),
        );
        let loader = Loader {
            host: self.host,
            working_directory: &self.options.working_directory,
            home: &self.options.home_directory,
        };
        let model = loader.load(&sources, &variables).map_err(|(name, reason)| {
            let file = files
                .iter()
                .find(|file| clean(&file.name) == name)
                .map_or(name, |file| file.name.clone());
            BakeError::Compose { file, reason }
        })?;
        Ok((model, variables))
    }

    fn config(&self, model: &Map, variables: &Variables) -> Result<Config, String> {
        let services = Services::new(model)?;
        services.check()?;
        for (name, secret) in services.secrets {
            target::check_secret_source(name, secret)?;
        }
        let mut config = Config::default();
        if services.all.is_empty() {
            return Ok(config);
        }
        let with_build: BTreeMap<String, bool> = services
            .all
            .iter()
            .map(|(name, service)| (String::from(*name), service.contains_key("build")))
            .collect();
        let mut group = Group {
            name: String::from("default"),
            ..Group::default()
        };
        for (name, service) in &services.all {
            let path = format!("services.{name}");
            let fields = Fields::new(service, &path);
            let image = fields.filled("image")?;
            let Some(Yaml::Map(build)) = service.get("build") else {
                if image.is_none() {
                    return Err(format!("service {name:?} has neither an image nor a build"));
                }
                continue;
            };
            let environment = self.environment(&fields, &path, variables)?;
            let lookup = |name: &str| environment.get(name).or_else(|| variables.get(name)).cloned();
            let surroundings = target::Surroundings {
                secrets: services.secrets,
                services: &with_build,
                lookup: &lookup,
            };
            let target = target::target(name, build, image, &surroundings)?;
            if !is_valid_name(&target.name) {
                return Err(format!(
                    "{:?} cannot be the name of a target; only a-z A-Z 0-9 _ - are allowed",
                    target.name
                ));
            }
            group.targets.push(target.name.clone());
            config.targets.push(target);
        }
        config.groups.push(group);
        Ok(config)
    }

    /// The environment that a service runs in, in which arguments without a value are looked up.
    fn environment(&self, fields: &Fields<'_>, path: &str, variables: &Variables) -> Result<Variables, String> {
        let own: Variables = fields
            .dictionary("environment")?
            .into_iter()
            .filter_map(|(name, value)| {
                value
                    .or_else(|| variables.get(&name).cloned())
                    .map(|value| (name, value))
            })
            .collect();
        let mut environment = Variables::new();
        for (file, required) in env_files(fields, path)? {
            let loader = Loader {
                host: self.host,
                working_directory: &self.options.working_directory,
                home: &self.options.home_directory,
            };
            if !required
                && self
                    .host
                    .kind(&resolve(&self.options.working_directory, &file))
                    .is_err()
            {
                continue;
            }
            let text = loader
                .read(&file)
                .map_err(|reason| format!("{path}.env_file: {file}: {reason}"))?;
            let known = |name: &str| variables.get(name).or_else(|| own.get(name)).cloned();
            dotenv::parse_into(&text, &mut environment, &known)
                .map_err(|reason| format!("{path}.env_file: {file}: {reason}"))?;
        }
        environment.extend(own);
        Ok(environment)
    }
}

/// The paths of environment files, and whether they have to be there.
fn env_files(fields: &Fields<'_>, path: &str) -> Result<Vec<(String, bool)>, String> {
    let path = format!("{path}.env_file");
    let Some(Yaml::List(items)) = fields.get("env_file") else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for item in items {
        let Yaml::Map(item) = item else {
            return Err(format!("{path} must hold strings or mappings, not {}", item.kind()));
        };
        let fields = Fields::new(item, &path);
        fields.only(&["path", "format", "required"])?;
        if let Some(format) = fields.filled("format")? {
            return Err(format!("{path}: unsupported format {format:?}"));
        }
        let file = fields.text("path")?.ok_or_else(|| format!("{path} needs a path"))?;
        let required = fields.get("required").is_none() || fields.bool("required")?;
        files.push((file, required));
    }
    Ok(files)
}

/// The `name` of a file. Files that cannot be read are complained about later.
fn project_name(text: &str, variables: &Variables) -> Option<String> {
    let documents = yaml::parse(text).ok()?;
    let name = documents.iter().rev().find_map(|document| match &document.root {
        Yaml::Map(map) => map.get("name").and_then(Yaml::as_text).filter(|name| !name.is_empty()),
        _ => None,
    })?;
    interpolate::substitute(name, &|name| variables.get(name).cloned()).ok()
}

/// What matters of a document.
struct Services<'m> {
    all: BTreeMap<&'m str, &'m Map>,
    secrets: &'m Map,
}

static EMPTY: Map = Map::new();

impl<'m> Services<'m> {
    fn new(model: &'m Map) -> Result<Services<'m>, String> {
        let secrets = match model.get("secrets") {
            None => None,
            Some(Yaml::Map(secrets)) => Some(secrets),
            Some(other) => return Err(format!("secrets must be a mapping, not {}", other.kind())),
        };
        let services = match model.get("services") {
            None | Some(Yaml::Null) => None,
            Some(Yaml::Map(services)) => Some(services),
            Some(other) => return Err(format!("services must be a mapping, not {}", other.kind())),
        };
        if secrets.is_none() && services.is_none() {
            return Err(String::from(
                "empty compose file: there are neither services nor secrets",
            ));
        }
        let mut all: BTreeMap<&str, &Map> = BTreeMap::new();
        for (name, service) in services.into_iter().flatten() {
            let is_name_char = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
            if name.is_empty() || !name.chars().all(is_name_char) {
                return Err(format!(
                    "services: {name:?} is no name of a service; only a-z A-Z 0-9 . _ - are allowed"
                ));
            }
            let service = match service {
                Yaml::Null => &EMPTY,
                Yaml::Map(service) => service,
                other => return Err(format!("services.{name} must be a mapping, not {}", other.kind())),
            };
            all.insert(name.as_str(), service);
        }
        Ok(Services {
            all,
            secrets: secrets.unwrap_or(&EMPTY),
        })
    }

    /// Checks everything that can be checked in one file of several.
    fn check(&self) -> Result<(), String> {
        for (name, secret) in self.secrets {
            target::check_secret(name, secret)?;
        }
        for (name, service) in &self.all {
            let path = format!("services.{name}");
            let fields = Fields::new(service, &path);
            fields.text("image")?;
            fields.dictionary("environment")?;
            env_files(&fields, &path)?;
            match service.get("build") {
                None => {}
                Some(Yaml::Map(build)) => target::check_build(build, &format!("{path}.build"))?,
                Some(other) => {
                    return Err(format!(
                        "{path}.build must be a mapping or a string, not {}",
                        other.kind()
                    ));
                }
            }
        }
        Ok(())
    }
}

//! Finding and reading the files of a definition, and telling the formats apart.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::compose::{Compose, ComposeFile};
use super::error::{BakeError, SourceError};
use super::hcl::ast::Body;
use super::hcl::{json, native};
use super::host::Host;
use super::options::BakeOptions;
use super::paths::resolve;
use super::program::SHAPES;
use super::remote::{Fetcher, MAX_DEFINITION, Remote, RemoteInput, RemoteTree};
use super::source::{Diagnostics, Sources};

/// Files that are taken when none is named, all that exist.
const DEFAULT_NAMES: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// A file of the definition.
struct File {
    name: String,
    content: Vec<u8>,
}

/// The files of a definition, sorted by format.
pub(crate) struct Files {
    pub(crate) compose: Vec<ComposeFile>,
    /// HCL in either syntax, in order.
    pub(crate) bodies: Vec<Body>,
    pub(crate) sources: Sources,
    pub(crate) remote: Option<RemoteInput>,
}

/// Finds, reads and parses all files.
pub(crate) struct Reading<'r> {
    pub(crate) options: &'r BakeOptions,
    pub(crate) host: &'r dyn Host,
    pub(crate) fetcher: &'r dyn Fetcher,
    pub(crate) compose: &'r Compose<'r>,
}

impl Reading<'_> {
    /// Reads what `-f` and the positional URL say, or the files of the default names.
    ///
    /// # Errors
    /// When there is no file, one cannot be read, or one is in no known format.
    pub(crate) fn read(&self, url: Option<&str>) -> Result<Files, BakeError> {
        let named = if self.options.files.is_empty() {
            self.names_of_environment()?
        } else {
            self.options.files.clone()
        };
        let local = |name: &String| name.strip_prefix("cwd://").map(String::from);
        let mut files = Vec::new();
        let mut remote = None;
        match url {
            None => {
                let names: Vec<String> = named
                    .iter()
                    .map(|name| local(name).unwrap_or_else(|| name.clone()))
                    .collect();
                files.extend(self.local_files(&names)?);
            }
            Some(url) => {
                let remote_names: Vec<String> = named.iter().filter(|name| local(name).is_none()).cloned().collect();
                let (found, input) = self.remote_files(url, &remote_names)?;
                files.extend(found);
                remote = Some(input);
                let local_names: Vec<String> = named.iter().filter_map(local).collect();
                if !local_names.is_empty() {
                    files.extend(self.local_files(&local_names)?);
                }
            }
        }
        if files.is_empty() {
            let looked_for = if named.is_empty() {
                DEFAULT_NAMES.map(String::from).to_vec()
            } else {
                named
            };
            return Err(BakeError::NoDefinition { looked_for });
        }
        self.sort(files, remote)
    }

    /// The names in `BUILDX_BAKE_FILE`.
    fn names_of_environment(&self) -> Result<Vec<String>, BakeError> {
        let environment: &BTreeMap<String, String> = &self.options.environment;
        let Some(list) = environment.get("BUILDX_BAKE_FILE") else {
            return Ok(Vec::new());
        };
        let separator = environment
            .get("BUILDX_BAKE_PATH_SEPARATOR")
            .filter(|separator| !separator.is_empty());
        let names = list
            .split(separator.map_or(":", String::as_str))
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(String::from).collect();
        for name in names.iter().filter(|name| *name != "-") {
            let path = resolve(&self.options.working_directory, name);
            self.host.kind(&path).map_err(|source| BakeError::Io {
                action: "find",
                path: name.clone(),
                source,
            })?;
        }
        Ok(names)
    }

    /// Reads files of this machine. Empty ones do not count.
    fn local_files(&self, names: &[String]) -> Result<Vec<File>, BakeError> {
        let mut files = Vec::new();
        if names.is_empty() {
            for name in DEFAULT_NAMES {
                match self.host.read(&resolve(&self.options.working_directory, name)) {
                    Ok(content) if content.is_empty() => {}
                    Ok(content) => files.push(File {
                        name: String::from(name),
                        content,
                    }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => {
                        return Err(BakeError::Io {
                            action: "read",
                            path: String::from(name),
                            source,
                        });
                    }
                }
            }
            return Ok(files);
        }
        let mut stdin = None;
        for name in names {
            let content = if name == "-" {
                match &stdin {
                    // It is gone once it is read.
                    Some(()) => Ok(Vec::new()),
                    None => {
                        stdin = Some(());
                        self.host.read_stdin()
                    }
                }
            } else {
                self.host.read(&resolve(&self.options.working_directory, name))
            };
            let content = content.map_err(|source| BakeError::Io {
                action: "read",
                path: name.clone(),
                source,
            })?;
            if !content.is_empty() || name == "-" {
                files.push(File {
                    name: name.clone(),
                    content,
                });
            }
        }
        Ok(files)
    }

    fn remote_files(&self, url: &str, names: &[String]) -> Result<(Vec<File>, RemoteInput), BakeError> {
        let fail = |reason: String| BakeError::Remote {
            url: String::from(url),
            reason,
        };
        let fetched = self.fetcher.fetch(url).map_err(|error| fail(error.to_string()))?;
        let input = match &fetched {
            Remote::File(_) => RemoteInput::File { url: String::from(url) },
            Remote::Tree(_) if super::remote::is_git(url) => RemoteInput::Git { url: String::from(url) },
            Remote::Tree(_) => RemoteInput::Archive { url: String::from(url) },
        };
        let tree = match fetched {
            Remote::Tree(tree) => tree,
            Remote::File(content) => {
                if content.len() > MAX_DEFINITION {
                    return Err(fail(format!(
                        "a definition must not be larger than {} MiB",
                        MAX_DEFINITION >> 20
                    )));
                }
                return Ok((
                    vec![File {
                        name: String::from(url),
                        content,
                    }],
                    input,
                ));
            }
        };
        Ok((tree_files(&*tree, url, names)?, input))
    }

    fn sort(&self, files: Vec<File>, remote: Option<RemoteInput>) -> Result<Files, BakeError> {
        let mut sorted = Files {
            compose: Vec::new(),
            bodies: Vec::new(),
            sources: Sources::default(),
            remote,
        };
        for file in files {
            let text = String::from_utf8(file.content).map_err(|_| BakeError::Io {
                action: "read",
                path: file.name.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"),
            })?;
            let extension = file
                .name
                .rsplit_once('.')
                .map(|(_, extension)| extension.to_lowercase());
            match extension.as_deref() {
                Some("yml" | "yaml") => {
                    let file = ComposeFile { name: file.name, text };
                    self.compose.check(&file)?;
                    sorted.compose.push(file);
                }
                Some("json") => {
                    let id = sorted.sources.add(&file.name, Arc::from(text.as_str()));
                    let body =
                        json::parse_body(id, &text, SHAPES).map_err(|problems| complain(&sorted.sources, problems))?;
                    sorted.bodies.push(body);
                }
                Some("hcl") => {
                    let text = text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text);
                    let id = sorted.sources.add(&file.name, Arc::from(text.as_str()));
                    let body = native::parse_body(id, &text).map_err(|problems| complain(&sorted.sources, problems))?;
                    sorted.bodies.push(body);
                }
                _ => self.guess(file.name, text, &mut sorted)?,
            }
        }
        Ok(sorted)
    }

    /// A file whose name says nothing: Compose, then HCL, then JSON, whichever it can be.
    fn guess(&self, name: String, text: String, sorted: &mut Files) -> Result<(), BakeError> {
        let as_compose = ComposeFile {
            name: name.clone(),
            text: text.clone(),
        };
        let Err(compose_error) = self.compose.check(&as_compose) else {
            sorted.compose.push(as_compose);
            return Ok(());
        };
        let id = sorted.sources.add(&name, Arc::from(text.as_str()));
        let native_problems = match native::parse_body(id, &text) {
            Ok(body) => {
                sorted.bodies.push(body);
                return Ok(());
            }
            Err(problems) => problems,
        };
        if let Ok(body) = json::parse_body(id, &text, SHAPES) {
            sorted.bodies.push(body);
            return Ok(());
        }
        let mut error = complain(&sorted.sources, native_problems);
        if let BakeError::Source(errors) = &mut error {
            let message = format!("it is no Compose file either: {compose_error}");
            errors.push(SourceError {
                location: None,
                message,
            });
        }
        Err(error)
    }
}

fn tree_files(tree: &dyn RemoteTree, url: &str, names: &[String]) -> Result<Vec<File>, BakeError> {
    let read = |name: &str| {
        let content = tree.read(name);
        content.map_err(|source| BakeError::Remote {
            url: String::from(url),
            reason: format!("cannot read `{name}`: {source}"),
        })
    };
    let mut files = Vec::new();
    if names.is_empty() {
        for name in DEFAULT_NAMES {
            if let Some(content) = read(name)? {
                files.push(File {
                    name: String::from(name),
                    content,
                });
            }
        }
        return Ok(files);
    }
    for name in names {
        match read(name)? {
            Some(content) => files.push(File {
                name: name.clone(),
                content,
            }),
            None => {
                return Err(BakeError::Remote {
                    url: String::from(url),
                    reason: format!("there is no file `{name}` in it; write cwd://{name} for a local one"),
                });
            }
        }
    }
    Ok(files)
}

/// Complaints with the places they are about.
pub(crate) fn complain(sources: &Sources, problems: Diagnostics) -> BakeError {
    let errors = problems.into_iter().map(|problem| SourceError {
        location: problem.span.and_then(|span| sources.locate(span)),
        message: problem.message,
    });
    BakeError::Source(errors.collect())
}

//! SOURCE_DATE_EPOCH: a number, or the name of something that has a time.

use cbs_image::reference::Reference;
use cbs_solver::pb;

use super::super::ast::{Add, Body, Stage};
use super::super::git_ref::GitRef;
use super::super::options::NamedContext;
use super::super::shell::{Shell, Variables};
use super::super::source::Complaint;
use super::Convert;
use super::context::{context_source, git_op, git_source};
use super::env::Env;
use super::remote::{http_source, is_http};
use super::stages::{SCRATCH, shell_complaint};

const NAME: &str = "SOURCE_DATE_EPOCH";

impl Convert<'_> {
    /// Reads the epoch from the build argument or the global ARG of that name, and makes a number of it there.
    pub(super) async fn resolve_epoch(&mut self) -> Result<(), Complaint> {
        let given = self.build_args.get(NAME).map(String::as_str);
        let global = self.globals.get(NAME).filter(|value| !value.is_empty());
        let Some(value) = given.or(global).map(str::to_owned) else {
            return Ok(());
        };
        self.epoch = match (value.as_str(), value.parse::<i64>()) {
            ("", _) => None,
            (_, Ok(seconds)) => Some(seconds),
            (name, Err(_)) => match self.epoch_source(name)? {
                None => None,
                Some(source) => {
                    let time = self.input.resolver.source_time(source).await;
                    time.map_err(|error| Complaint::new(format!("{NAME}={name}: {}", error.chain())))?
                }
            },
        };
        match self.epoch {
            Some(seconds) => {
                let text = seconds.to_string();
                if self.globals.get(NAME).is_some() {
                    self.globals.set(NAME, &text);
                }
                if let Some(given) = self.build_args.get_mut(NAME) {
                    *given = text;
                }
            }
            None => {
                self.globals.remove(NAME);
                self.build_args.remove(NAME);
            }
        }
        Ok(())
    }

    /// The source whose time counts: the main context, a named context, or the one remote ADD of a scratch stage.
    fn epoch_source(&self, name: &str) -> Result<Option<pb::SourceOp>, Complaint> {
        let options = self.input.options;
        let git_complaint =
            |error: super::super::git_ref::GitRefError| Complaint::new(format!("{NAME}={name}: {error}"));
        if name == "context" {
            return context_source(options).map_err(git_complaint);
        }
        if let Some((_, context)) = self.find_context(name, &options.build_platform) {
            return Ok(match context {
                NamedContext::Url { url } => match git_source(url, None, None).map_err(git_complaint)? {
                    Some(source) => Some(source),
                    None => Some(pb::SourceOp {
                        identifier: url.clone(),
                        attrs: [("http.filename".to_owned(), "context".to_owned())].into(),
                    }),
                },
                NamedContext::Local { name, .. } => Some(pb::SourceOp {
                    identifier: format!("local://{name}"),
                    ..Default::default()
                }),
                NamedContext::Image { reference } => {
                    let reference: Option<Reference> = reference.parse().ok();
                    reference.map(|reference| pb::SourceOp {
                        identifier: format!("docker-image://{}", reference.with_default_tag()),
                        ..Default::default()
                    })
                }
                NamedContext::OciLayout { .. } | NamedContext::Input { .. } => None,
            });
        }
        let stages = &self.input.dockerfile.stages;
        let is_named = |stage: &&Stage| {
            stage
                .from
                .alias
                .as_ref()
                .is_some_and(|alias| alias.name.eq_ignore_ascii_case(name))
        };
        let Some(stage) = stages.iter().find(is_named) else {
            return Err(Complaint::new(format!("invalid {NAME}: {name}")));
        };
        self.stage_source(stage)
            .map(Some)
            .map_err(|complaint| complaint.at(stage.head.span).on(stage.head.lines))
    }

    fn stage_source(&self, stage: &Stage) -> Result<pb::SourceOp, Complaint> {
        let only_one = || Complaint::new(format!("{NAME} stage must contain exactly one remote ADD"));
        let mut env = self.globals.clone();
        env.remove(NAME);
        let base = expand(&self.shell, &stage.from.base.value, &env)?;
        if base != SCRATCH {
            return Err(Complaint::new(format!("{NAME} stage must use FROM scratch")));
        }
        let mut source = None;
        for command in &stage.commands {
            match &command.body {
                Body::Arg(items) => {
                    for item in items {
                        let value = match (self.build_args.get(&item.name), &item.default) {
                            (Some(given), _) => given.clone(),
                            (None, Some(default)) => expand(&self.shell, default, &env)?,
                            (None, None) => continue,
                        };
                        env.set(&item.name, &value);
                    }
                }
                Body::Add(add) if source.is_none() => source = Some(add_source(&self.shell, add, &env)?),
                Body::Add(_) => return Err(only_one()),
                _ => {
                    let keyword = &command.head.keyword.value;
                    let message = format!(
                        "{NAME} stage does not meet source-only requirements: unsupported {keyword} instruction"
                    );
                    return Err(Complaint::new(message).at(command.head.span).on(command.head.lines));
                }
            }
        }
        source.ok_or_else(only_one)
    }
}

fn expand(shell: &Shell, text: &str, env: &Env) -> Result<String, Complaint> {
    shell
        .expand(text, env)
        .map(|expansion| expansion.text)
        .map_err(|error| shell_complaint(&error))
}

fn add_source(shell: &Shell, add: &Add, env: &Env) -> Result<pb::SourceOp, Complaint> {
    let ([source], []) = (add.transfer.sources.as_slice(), add.transfer.documents.as_slice()) else {
        return Err(Complaint::new(format!(
            "{NAME} stage must contain exactly one remote ADD source"
        )));
    };
    let url = expand(shell, &source.value, env)?;
    let checksum = match &add.checksum {
        Some(checksum) => expand(shell, &checksum.value, env)?,
        None => String::new(),
    };
    match GitRef::parse(&url).map_err(|error| Complaint::new(error.to_string()).at(source.span))? {
        Some(mut git) => {
            if add.keep_git_dir == Some(true) {
                git.keep_git_dir = Some(true);
            }
            if !checksum.is_empty() {
                git.checksum = checksum;
            }
            Ok(git_op(&git))
        }
        None if is_http(&url) => Ok(http_source(&url, &checksum).0),
        None => {
            let message = format!("{NAME} stage source must be a single HTTP(S) or Git ADD");
            Err(Complaint::new(message).at(source.span))
        }
    }
}

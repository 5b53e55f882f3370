//! One instruction: its variables expanded, then lowered.

use super::super::ast::{Body, Head};
use super::super::lint::check_undefined_variables;
use super::super::shell::{Expansion, Shell};
use super::super::source::Complaint;
use super::Convert;
use super::copy::{Transferring, Which};
use super::stages::shell_complaint;
use super::state::{Command, StageState};

impl<'a> Convert<'a> {
    pub(super) fn dispatch(&mut self, stage: &mut StageState<'a>, command: &Command<'a>) -> Result<(), Complaint> {
        let head = &command.instruction.head;
        match &command.instruction.body {
            Body::Add(add) => {
                let which = Which::Add {
                    keep_git_dir: add.keep_git_dir,
                    checksum: add.checksum.as_ref(),
                    unpack: add.unpack,
                };
                self.transfer(
                    stage,
                    &Transferring {
                        head,
                        transfer: &add.transfer,
                        which,
                    },
                )
            }
            Body::Copy(copy) => {
                let from = command.sources.first().copied().flatten();
                let which = Which::Copy {
                    from,
                    parents: copy.parents,
                };
                self.transfer(
                    stage,
                    &Transferring {
                        head,
                        transfer: &copy.transfer,
                        which,
                    },
                )
            }
            Body::Arg(items) => self.arg(stage, head, items),
            Body::Cmd(line) => self.cmd(stage, head, line),
            Body::Entrypoint(line) => self.entrypoint(stage, head, line),
            Body::Env(pairs) => self.env(stage, head, pairs),
            Body::Expose(ports) => self.expose(stage, head, ports),
            // Parsing puts no FROM into a stage.
            Body::From(_) => Ok(()),
            Body::Healthcheck(check) => self.healthcheck(stage, head, check),
            Body::Label(pairs) => self.label(stage, head, pairs),
            Body::Maintainer(name) => self.maintainer(stage, &name.value),
            Body::Onbuild(trigger) => {
                stage.image.config.on_build.push(trigger.clone());
                Ok(())
            }
            Body::Run(run) => self.run_step(stage, head, run, &command.sources),
            Body::Shell(words) => self.shell(stage, words),
            Body::Stopsignal(signal) => self.stopsignal(stage, head, signal),
            Body::User(user) => self.user(stage, head, user),
            Body::Volume(volumes) => self.volume(stage, head, volumes),
            Body::Workdir(path) => self.workdir(stage, head, path),
        }
    }

    /// Expands a word of an instruction.
    pub(super) fn expand(&mut self, stage: &StageState<'_>, head: &Head, word: &str) -> Result<String, Complaint> {
        Ok(self.expand_with(self.shell, stage, head, word)?.text)
    }

    pub(super) fn expand_with(
        &mut self,
        shell: Shell,
        stage: &StageState<'_>,
        head: &Head,
        word: &str,
    ) -> Result<Expansion, Complaint> {
        let expansion = shell
            .expand(word, &stage.env)
            .map_err(|error| shell_complaint(&error))?;
        if !expansion.unmatched.is_empty() {
            let declared = |name: &str| stage.declares(name);
            check_undefined_variables(
                &expansion.unmatched,
                &declared,
                stage.env.names(),
                head,
                &mut self.linter,
            );
        }
        Ok(expansion)
    }
}

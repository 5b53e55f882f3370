//! COPY and ADD.

use super::super::ast::{Add, Copy, Heredoc, Transfer};
use super::super::source::Complaint;
use super::flags::{Flags, Kind};
use super::heredoc::parse_word;
use super::instruction::Statement;

impl Statement<'_> {
    fn transfer(&self, flags: &Flags, heredocs: Vec<Heredoc>) -> Result<Transfer, Complaint> {
        let mut words = self.words_or_json()?;
        let destination = words.pop().unwrap_or_default();
        if parse_word(&destination.value).is_some() {
            let message = format!("{} cannot accept a heredoc as a destination", self.name());
            return Err(Complaint::new(message).at(destination.span));
        }
        let mut transfer = Transfer {
            destination,
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.switch("link").unwrap_or(false),
            exclude: flags.all("exclude").map(|word| word.value.clone()).collect(),
            ..Transfer::default()
        };
        for word in words {
            let Some(opening) = parse_word(&word.value) else {
                transfer.sources.push(word);
                continue;
            };
            // The last document of a name serves every word of it.
            let found = heredocs.iter().rev().find(|document| document.name == opening.name);
            let content = found.map(|document| document.content.clone()).unwrap_or_default();
            transfer.documents.push(Heredoc { content, ..opening });
        }
        Ok(transfer)
    }

    fn count_paths(&self) -> Result<(), Complaint> {
        if self.words_or_json()?.len() >= 2 {
            return Ok(());
        }
        let message = format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            self.name()
        );
        Err(Complaint::new(message).at(self.keyword.span()))
    }

    pub(super) fn add(&self, heredocs: Vec<Heredoc>) -> Result<Add, Complaint> {
        self.count_paths()?;
        let known = [
            ("chown", Kind::Value),
            ("chmod", Kind::Value),
            ("link", Kind::Switch),
            ("keep-git-dir", Kind::Switch),
            ("checksum", Kind::Value),
            ("unpack", Kind::Switch),
            ("exclude", Kind::Values),
        ];
        let flags = Flags::parse(&self.flags, &known)?;
        Ok(Add {
            transfer: self.transfer(&flags, heredocs)?,
            keep_git_dir: flags.switch("keep-git-dir"),
            checksum: flags.value("checksum"),
            unpack: flags.switch("unpack"),
        })
    }

    pub(super) fn copy(&self, heredocs: Vec<Heredoc>) -> Result<Copy, Complaint> {
        self.count_paths()?;
        let known = [
            ("chown", Kind::Value),
            ("from", Kind::Value),
            ("chmod", Kind::Value),
            ("link", Kind::Switch),
            ("exclude", Kind::Values),
            ("parents", Kind::Switch),
        ];
        let flags = Flags::parse(&self.flags, &known)?;
        Ok(Copy {
            transfer: self.transfer(&flags, heredocs)?,
            from: flags.value("from"),
            parents: flags.switch("parents").unwrap_or(false),
        })
    }
}

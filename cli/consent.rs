//! Asking whether a bake may do what nobody granted it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::bail;
use cbs_frontends::bake::{Grants, Privilege};

use crate::failure::Usage;

/// What is missing is granted by a person at a terminal, or nothing is built.
///
/// # Errors
/// When nobody can be asked, or the answer is no; the message has the flags that grant it.
pub(crate) fn ask(missing: &[Privilege]) -> anyhow::Result<Grants> {
    let flags: Vec<String> = missing.iter().map(|privilege| privilege.flag.clone()).collect();
    let written: Vec<String> = flags.iter().map(|flag| format!("--allow {}", quoted(flag))).collect();
    let written = written.join(" ");
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let wanted: Vec<&str> = missing.iter().map(|privilege| privilege.description.as_str()).collect();
        bail!(
            "the build asks for more than it was granted: {}\nhelp: grant it with {written}",
            wanted.join(", ")
        );
    }
    let mut screen = std::io::stderr().lock();
    let mut text = "The build asks for more than it was granted:\n".to_owned();
    for privilege in missing {
        text.push_str(&format!("  {}\n", privilege.description));
    }
    text.push_str(&format!(
        "To grant it without being asked: {written}\nGrant it and go on? [y/N] "
    ));
    // Whoever cannot see the question gives no answer.
    screen.write_all(text.as_bytes()).and_then(|()| screen.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !is_yes(&answer) {
        bail!(Usage(format!(
            "the build was not granted what it asks for; {written} grants it"
        )));
    }
    Ok(Grants::parse(&flags)?)
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// As a shell wants it.
fn quoted(flag: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-/=:,+@%".contains(char);
    if flag.chars().all(is_plain) {
        flag.to_owned()
    } else {
        format!("'{}'", flag.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("fs.read=../a_b"), "fs.read=../a_b");
        assert_eq!(quoted("fs.read=../it's here"), "'fs.read=../it'\\''s here'");
    }

    #[test]
    fn only_a_yes_is_one() {
        for (answer, want) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("n\n", false),
            ("yeah\n", false),
            ("", false),
        ] {
            assert_eq!(is_yes(answer), want, "{answer:?}");
        }
    }
}

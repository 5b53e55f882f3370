//! Lint: the rules of BuildKit's build checks, and which of them are heard.
//!
//! A rule is silenced for the file by `# check=skip=…` (or the build argument `BUILDKIT_DOCKERFILE_CHECK`, which wins)
//! and for one instruction by the same in a comment right above it.

mod checks;
mod rules;

use std::collections::BTreeSet;
use std::fmt;

pub(crate) use checks::{
    check_base_platform, check_default_bases, check_platform_flag, check_secret_name, check_syntax,
    check_undefined_in_from, check_undefined_variables, is_root_ignored,
};
pub use rules::LintRule;

use super::go::parse_bool;
use super::parse::check_in_comment;
use super::source::LineRange;

/// Something that builds, and should be written otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintWarning {
    /// The rule that was broken.
    pub rule: LintRule,
    /// What is wrong here.
    pub detail: String,
    /// The lines of the instruction.
    pub lines: LineRange,
}

impl fmt::Display for LintWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (line {})", self.rule.name(), self.detail, self.lines.first)
    }
}

/// Which rules are heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LintConfig {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    /// Whether a warning fails the build.
    pub(crate) error: bool,
}

impl LintConfig {
    /// Reads `skip=…;experimental=…;error=…`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("invalid check option `{part}`"))?;
            let value = value.trim();
            let rules = || value.split(',').map(|rule| rule.trim().to_owned()).collect();
            match key.trim() {
                "skip" if value == "all" => config.skip_all = true,
                "skip" => config.skip = rules(),
                "experimental" if value == "all" => config.experimental_all = true,
                "experimental" => config.experimental = rules(),
                "error" => {
                    let error = parse_bool(value).ok_or_else(|| format!("failed to parse check option `{part}`"))?;
                    config.error = error;
                }
                key => return Err(format!("invalid check option `{key}`")),
            }
        }
        Ok(config)
    }

    fn hears(&self, rule: LintRule) -> bool {
        if rule.is_experimental() {
            self.experimental_all || self.experimental.contains(rule.name())
        } else {
            !self.skip_all && !self.skip.contains(rule.name())
        }
    }

    fn merged(&self, other: Self) -> Self {
        let mut merged = self.clone();
        merged.skip_all |= other.skip_all;
        merged.skip.extend(other.skip);
        merged.experimental_all |= other.experimental_all;
        merged.experimental.extend(other.experimental);
        merged
    }
}

/// Collects warnings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Linter {
    pub(crate) config: LintConfig,
    pub(crate) warnings: Vec<LintWarning>,
}

impl Linter {
    /// Notes a broken rule, unless the file or the comments above the instruction silence it.
    pub(crate) fn warn(&mut self, comments: &[String], rule: LintRule, lines: LineRange, detail: String) {
        let local = comments.iter().find_map(|comment| check_in_comment(comment));
        let heard = match local.and_then(|text| LintConfig::parse(&text).ok()) {
            Some(local) => self.config.merged(local).hears(rule),
            None => self.config.hears(rule),
        };
        if heard {
            self.warnings.push(LintWarning { rule, detail, lines });
        }
    }

    /// The message that fails the build when warnings are errors and there are any.
    pub(crate) fn failure(&self) -> Option<String> {
        if !self.config.error || self.warnings.is_empty() {
            return None;
        }
        let rules: BTreeSet<&str> = self.warnings.iter().map(|warning| warning.rule.name()).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        Some(format!("lint violation found for rules: {}", rules.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs() {
        let config = LintConfig::parse(" skip = StageNameCasing, FromAsCasing ; error = true").expect("reads");
        assert!(!config.hears(LintRule::StageNameCasing) && config.hears(LintRule::UndefinedVar) && config.error);
        assert!(!config.hears(LintRule::InvalidDefinitionDescription));
        let config = LintConfig::parse("skip=all;experimental=all").expect("reads");
        assert!(!config.hears(LintRule::UndefinedVar) && config.hears(LintRule::InvalidDefinitionDescription));
        for bad in ["what=1", "skip", "error=perhaps"] {
            assert!(LintConfig::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn comments_silence_one_instruction() {
        let mut linter = Linter::default();
        let lines = LineRange { first: 3, last: 3 };
        linter.warn(
            &["check=skip=UndefinedVar".into()],
            LintRule::UndefinedVar,
            lines,
            "x".into(),
        );
        linter.warn(
            &["check=skip=UndefinedVar".into()],
            LintRule::StageNameCasing,
            lines,
            "y".into(),
        );
        let shown: Vec<String> = linter.warnings.iter().map(LintWarning::to_string).collect();
        assert_eq!(shown, ["StageNameCasing: y (line 3)"]);
        assert_eq!(linter.failure(), None);
        linter.config.error = true;
        assert_eq!(
            linter.failure().as_deref(),
            Some("lint violation found for rules: StageNameCasing")
        );
    }
}

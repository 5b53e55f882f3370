//! What a Dockerfile says, instruction by instruction, before anything is expanded.

use cbs_image::config::Healthcheck;

use super::source::{LineRange, Span, Spanned};

/// A word of the file.
pub(crate) type Word = Spanned<String>;

/// A whole Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dockerfile {
    /// The character that escapes and continues lines.
    pub(crate) escape: char,
    /// The value of `# check=`, if any.
    pub(crate) check: Option<Word>,
    /// The ARG instructions before the first FROM.
    pub(crate) global_args: Vec<Instruction>,
    pub(crate) stages: Vec<Stage>,
    /// Last lines of instructions with an empty continuation line.
    pub(crate) empty_continuations: Vec<u32>,
}

/// A FROM and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) head: Head,
    pub(crate) from: From,
    pub(crate) commands: Vec<Instruction>,
}

/// What every instruction has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The name as written.
    pub(crate) keyword: Word,
    /// The text of the instruction with continuations joined.
    pub(crate) code: String,
    pub(crate) span: Span,
    pub(crate) lines: LineRange,
    /// Comment lines right above, without their `#`.
    pub(crate) comments: Vec<String>,
}

/// Any instruction but FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) head: Head,
    pub(crate) body: Body,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Add(Add),
    Arg(Vec<ArgItem>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    /// Sorted by text.
    Expose(Vec<Word>),
    From(From),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    Maintainer(Word),
    /// The trigger as it is stored in the image, heredocs included.
    Onbuild(String),
    Run(Run),
    Shell(Vec<Word>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

/// `FROM --platform=P BASE AS NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) base: Word,
    pub(crate) platform: Option<Word>,
    /// `AS` or `as`, and the name as written and in lower case.
    pub(crate) alias: Option<Alias>,
}

/// The name a FROM gives its stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) keyword: Word,
    pub(crate) written: Word,
    pub(crate) name: String,
}

/// `NAME` or `NAME=DEFAULT` of an ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArgItem {
    pub(crate) name: String,
    pub(crate) default: Option<String>,
    /// From the comment above that starts with the name.
    pub(crate) description: String,
}

/// `KEY=VALUE`, or `KEY VALUE` in the old form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) form: PairForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairForm {
    Equals,
    Legacy,
}

/// A command in shell or exec form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// One text in shell form, the words in exec form.
    pub(crate) args: Vec<String>,
    pub(crate) form: CommandForm,
    pub(crate) heredocs: Vec<Heredoc>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CommandForm {
    #[default]
    Shell,
    Exec,
}

/// A document within the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// The word that ends it.
    pub(crate) name: String,
    /// Whether the word was unquoted, so that variables expand.
    pub(crate) expand: bool,
    /// Whether leading tabs are dropped.
    pub(crate) chomp: bool,
    /// The bytes as they are in the file, line ends included.
    pub(crate) content: Vec<u8>,
}

impl Heredoc {
    /// The content with leading tabs dropped where `<<-` asks for it.
    pub(crate) fn chomped(&self) -> Vec<u8> {
        if !self.chomp {
            return self.content.clone();
        }
        let mut chomped = Vec::with_capacity(self.content.len());
        for line in self.content.split_inclusive(|&byte| byte == b'\n') {
            let tabs = line.iter().take_while(|&&byte| byte == b'\t').count();
            chomped.extend_from_slice(&line[tabs..]);
        }
        chomped
    }
}

/// A RUN and its flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) command: CommandLine,
    pub(crate) mounts: Vec<RawMount>,
    pub(crate) network: Network,
    pub(crate) security: Security,
    pub(crate) devices: Vec<Device>,
}

/// The text of a `--mount`, which is read when its variables are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawMount {
    pub(crate) text: Word,
    /// The stage, context or image it names; that much must be known beforehand.
    pub(crate) from: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Network {
    #[default]
    Default,
    None,
    Host,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Security {
    #[default]
    Sandbox,
    Insecure,
}

/// A `--device`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) required: bool,
}

/// What COPY and ADD have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) sources: Vec<Word>,
    pub(crate) documents: Vec<Heredoc>,
    pub(crate) destination: Word,
    pub(crate) chown: Option<Word>,
    pub(crate) chmod: Option<Word>,
    pub(crate) link: bool,
    pub(crate) exclude: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) transfer: Transfer,
    pub(crate) from: Option<Word>,
    pub(crate) parents: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Add {
    pub(crate) transfer: Transfer,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) checksum: Option<Word>,
    pub(crate) unpack: Option<bool>,
}

/// The text behind a name in one of the comments above an instruction.
pub(crate) fn description(comments: &[String], name: &str) -> String {
    let found = comments
        .iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if name.is_empty() {
        String::new()
    } else {
        found.unwrap_or_default().to_owned()
    }
}

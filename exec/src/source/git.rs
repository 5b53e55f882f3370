//! `git://` sources: a commit's tree, by way of the `git` program, as BuildKit does it.
//!
//! ```text
//! remote ─ ls-remote ─► commit ─ fetch --depth 1 ─► bare mirror (a cache mount) ─ checkout ─► scratch ─► tree
//! ```
//! Blocking. One mirror per remote is kept in the store's cache folder, locked while in use.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cbs_image::source::Network;

use super::SourceError;
use super::git_files::remove_git_dirs;

/// What a `git` source op asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitRequest {
    /// The remote, as git takes it.
    pub(crate) remote: String,
    /// Branch, tag, full ref or commit; empty for the remote's HEAD.
    pub(crate) reference: String,
    /// Folder of the tree that becomes the root; empty for all of it.
    pub(crate) subdir: String,
    /// Whether `.git` stays.
    pub(crate) keep_git_dir: bool,
    /// What the commit must be; a prefix is enough.
    pub(crate) checksum: Option<String>,
    /// Whether submodules are left out.
    pub(crate) skip_submodules: bool,
    /// An HTTP `Authorization` header.
    pub(crate) auth: Option<Authorization>,
    /// Socket of an ssh agent.
    pub(crate) ssh_socket: Option<PathBuf>,
    /// A known_hosts file that alone counts.
    pub(crate) known_hosts: Option<PathBuf>,
    /// Whether the checksum is taken at its word, without a look at the reference.
    pub(crate) by_commit: bool,
    /// Whether the remote may be asked.
    pub(crate) network: Network,
}

/// What opens a server's doors.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Authorization {
    /// The header's value.
    pub(crate) header: String,
    /// Where it is sent to.
    pub(crate) scope: AuthScope,
}

/// Where an authorization is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthScope {
    /// The one repository.
    Repository,
    /// Every repository of its host, so submodules, too: it was given for that host.
    Host,
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorization")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl GitRequest {
    /// Splits `git://` op identifiers: `git://host/path#ref:subdir`. The remote is `full_url` when given.
    pub(crate) fn parse(identifier: &str, full_url: Option<&str>) -> Self {
        let bare = identifier.strip_prefix("git://").unwrap_or(identifier);
        let (remote, fragment) = bare.split_once('#').unwrap_or((bare, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let remote = match full_url {
            Some(url) => url.split('#').next().unwrap_or_default().to_owned(),
            None => format!("https://{remote}"),
        };
        Self {
            remote,
            reference: reference.to_owned(),
            subdir: subdir.trim_matches('/').to_owned(),
            keep_git_dir: false,
            checksum: None,
            skip_submodules: false,
            auth: None,
            ssh_socket: None,
            known_hosts: None,
            by_commit: false,
            network: Network::Online,
        }
    }

    /// The commit the request names itself: by its reference, or by a whole checksum that is to be believed.
    ///
    /// # Errors
    /// [`SourceError::Checksum`] when reference and checksum name different ones.
    pub(crate) fn own_commit(&self) -> Result<Option<String>, SourceError> {
        if is_commit(&self.reference) {
            return self.check(self.reference.clone()).map(Some);
        }
        let checksum = self.checksum.clone();
        Ok(checksum.filter(|sum| self.by_commit && is_commit(sum)))
    }

    /// Asks the remote which commit the reference is now; a full commit id needs no asking.
    ///
    /// # Errors
    /// [`SourceError::Git`] when the remote cannot be asked or has no such reference.
    pub(crate) fn resolve(&self) -> Result<String, SourceError> {
        if let Some(id) = self.own_commit()? {
            return Ok(id);
        }
        let wanted = if self.reference.is_empty() {
            "HEAD"
        } else {
            &self.reference
        };
        let listing = self.git(
            None,
            ["ls-remote", "--", &self.remote, wanted, &format!("{wanted}^{{}}")],
        )?;
        let refs: Vec<(&str, &str)> = listing.lines().filter_map(|line| line.split_once('\t')).collect();
        let find = |name: &str| refs.iter().find(|(_, found)| *found == name).map(|(id, _)| *id);
        let candidates = [
            wanted.to_owned(),
            // As for `git checkout`, a branch goes before a tag of the same name.
            format!("refs/heads/{wanted}"),
            format!("refs/tags/{wanted}"),
            format!("refs/{wanted}"),
        ];
        for name in candidates {
            if let Some(id) = find(&name) {
                // An annotated tag stands for the commit it points to.
                let id = find(&format!("{name}^{{}}")).unwrap_or(id).to_owned();
                return self.check(id);
            }
        }
        Err(SourceError::GitReference {
            remote: self.redacted(),
            reference: wanted.to_owned(),
        })
    }

    /// Compares a commit with the checksum, if there is one.
    ///
    /// # Errors
    /// [`SourceError::Checksum`].
    pub(crate) fn check(&self, commit: String) -> Result<String, SourceError> {
        match &self.checksum {
            Some(expected) if !commit.starts_with(expected.as_str()) => Err(SourceError::Checksum {
                what: format!("{}#{}", self.redacted(), self.reference),
                expected: expected.clone(),
                actual: commit,
            }),
            _ => Ok(commit),
        }
    }

    /// Fetches a commit into the mirror and checks its tree out into `target`, which must be an empty folder.
    /// Returns the commit's time, seconds since 1970.
    ///
    /// # Errors
    /// [`SourceError`] with what git said.
    pub(crate) fn checkout(&self, commit: &str, mirror: &Path, target: &Path) -> Result<i64, SourceError> {
        if !mirror.join("HEAD").exists() {
            self.git(
                None,
                [
                    OsStr::new("init"),
                    OsStr::new("--bare"),
                    OsStr::new("--quiet"),
                    mirror.as_os_str(),
                ],
            )?;
        }
        self.bring(commit, mirror)?;
        if self.keep_git_dir {
            self.clone_with_history(commit, mirror, target)?;
        } else {
            let tree = format!("--work-tree={}", target.display());
            self.git(
                Some(mirror),
                [tree.as_str(), "checkout", "--quiet", "--force", commit, "--", "."],
            )?;
            if !self.skip_submodules && target.join(".gitmodules").exists() {
                self.clone_with_history(commit, mirror, target)?;
                remove_git_dirs(target)?;
            }
        }
        let time = self.git(Some(mirror), ["show", "--no-patch", "--format=%ct", commit])?;
        time.trim().parse().map_err(|_| SourceError::Git {
            remote: self.redacted(),
            command: "show".to_owned(),
            output: format!("no commit time in `{}`", time.trim()),
        })
    }

    /// Fetches a commit into the mirror, unless it is there.
    fn bring(&self, commit: &str, mirror: &Path) -> Result<(), SourceError> {
        let object = format!("{commit}^{{commit}}");
        let has_it = || self.git(Some(mirror), ["cat-file", "-e", &object]).is_ok();
        if has_it() {
            return Ok(());
        }
        if self.network == Network::Offline {
            return Err(SourceError::Offline(format!("{}#{commit}", self.redacted())));
        }
        let reference = if self.reference.is_empty() {
            "HEAD"
        } else {
            &self.reference
        };
        // The reference first: not every server gives out commits by their id. It may have moved, though.
        for what in [reference, commit] {
            let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", &self.remote, what];
            if self.git(Some(mirror), shallow).is_ok() && has_it() {
                return Ok(());
            }
        }
        // A server may refuse to be shallow, too: then everything is fetched.
        let all = [
            "fetch",
            "--quiet",
            "--tags",
            "--",
            &self.remote,
            "+refs/*:refs/remotes/cbs/*",
        ];
        self.git(Some(mirror), all)?;
        match has_it() {
            true => Ok(()),
            false => Err(SourceError::GitReference {
                remote: self.redacted(),
                reference: commit.to_owned(),
            }),
        }
    }

    /// The name under which the mirror has a commit, as far as it was asked for by name. It is fetched first, so that
    /// what looks into `.git` (`git describe`) finds the tag.
    fn name_of(&self, commit: &str, mirror: &Path) -> Option<String> {
        if self.reference.is_empty() || is_commit(&self.reference) {
            return None;
        }
        let names = match self.reference.starts_with("refs/") {
            true => vec![self.reference.clone()],
            false => ["heads", "tags"]
                .map(|kind| format!("refs/{kind}/{}", self.reference))
                .into(),
        };
        names.into_iter().find(|name| {
            if self.network == Network::Online {
                let spec = format!("+{name}:{name}");
                // One that is not there, or has moved on meanwhile, is told below.
                let _ = self.git(
                    Some(mirror),
                    ["fetch", "--quiet", "--no-tags", "--depth=1", "--", &self.remote, &spec],
                );
            }
            let found = self.git(
                Some(mirror),
                ["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")],
            );
            found.is_ok_and(|found| found.trim() == commit)
        })
    }

    /// A work tree that has `.git`, a shallow one, with submodules.
    fn clone_with_history(&self, commit: &str, mirror: &Path, target: &Path) -> Result<(), SourceError> {
        let at = |arguments: &[&str]| {
            let target = target.to_string_lossy();
            let mut all = vec!["-C", target.as_ref()];
            all.extend_from_slice(arguments);
            self.git(None, all)
        };
        let name = if self.keep_git_dir {
            self.name_of(commit, mirror)
        } else {
            None
        };
        let spec = name.map_or_else(|| commit.to_owned(), |name| format!("+{name}:{name}"));
        at(&["init", "--quiet"])?;
        at(&[
            "-c",
            "protocol.file.allow=always",
            "fetch",
            "--quiet",
            // The branch that a fresh repository stands on may be the one that is fetched.
            "--update-head-ok",
            "--no-tags",
            "--depth=1",
            &mirror.to_string_lossy(),
            &spec,
        ])?;
        at(&["checkout", "--quiet", "--force", "FETCH_HEAD"])?;
        at(&["remote", "add", "origin", &self.remote])?;
        if !self.skip_submodules {
            let update = at(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]);
            update.map_err(|err| match self.network {
                Network::Online => err,
                Network::Offline => SourceError::Offline(format!("submodules of {}#{commit}", self.redacted())),
            })?;
        }
        // What stays behind is part of an image: no password of the remote, no trace of the mirror.
        at(&["remote", "set-url", "origin", &self.redacted()])?;
        at(&["reflog", "expire", "--all", "--expire=now"])?;
        let head = target.join(".git/FETCH_HEAD");
        match std::fs::remove_file(&head) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                return Err(SourceError::io("remove", &head)(err));
            }
            _ => {}
        }
        Ok(())
    }

    /// The host of the remote, with its port.
    pub(crate) fn host(&self) -> &str {
        let rest = self
            .remote
            .split_once("://")
            .map_or(self.remote.as_str(), |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        host.rsplit_once('@').map_or(host, |(_, host)| host)
    }

    /// The remote without user and password, for messages.
    fn redacted(&self) -> String {
        match self.remote.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                format!("{scheme}://{host}/{path}")
            }
            None => self.remote.clone(),
        }
    }

    /// The beginning of the addresses that get an authorization.
    fn scope_of(&self, auth: &Authorization) -> String {
        // A token of this host opens other repositories of an organisation there, and nobody has one for a single one.
        let is_shared = self.remote.starts_with("https://github.com/");
        match self.remote.split_once("://") {
            Some((scheme, _)) if auth.scope == AuthScope::Host || is_shared => format!("{scheme}://{}/", self.host()),
            _ => self.remote.clone(),
        }
    }

    fn ssh_command(&self) -> String {
        let ssh = "ssh -F /dev/null -o BatchMode=yes";
        match &self.known_hosts {
            None => format!("{ssh} -o StrictHostKeyChecking=accept-new"),
            Some(file) => format!(
                "{ssh} -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null -o 'UserKnownHostsFile=\"{}\"'",
                file.display()
            ),
        }
    }

    fn git<S: AsRef<OsStr>>(
        &self,
        git_dir: Option<&Path>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, SourceError> {
        let arguments: Vec<S> = arguments.into_iter().collect();
        let mut command = Command::new("git");
        // Neither the user's configuration nor hooks of the machine have a say in what a source is.
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(Stdio::null());
        if self.network == Network::Offline {
            // Submodules must not be fetched behind our back, either.
            command.env("GIT_ALLOW_PROTOCOL", "file");
        }
        command.env("GIT_SSH_COMMAND", self.ssh_command());
        match &self.ssh_socket {
            Some(socket) => command.env("SSH_AUTH_SOCK", socket),
            None => command.env_remove("SSH_AUTH_SOCK"),
        };
        if let Some(auth) = &self.auth {
            // By environment, so that the secret stands on no command line.
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{}.extraheader", self.scope_of(auth)))
                .env("GIT_CONFIG_VALUE_0", format!("Authorization: {}", auth.header));
        }
        command.args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "advice.detachedHead=false",
            "-c",
            "safe.directory=*",
        ]);
        if let Some(dir) = git_dir {
            command.arg("--git-dir").arg(dir);
        }
        command.args(&arguments);
        let output = command.output().map_err(|source| SourceError::NoGit { source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(SourceError::Git {
            remote: self.redacted(),
            command: arguments
                .first()
                .map_or(String::new(), |first| first.as_ref().to_string_lossy().into_owned()),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// Standard base64 with padding, for the basic scheme of HTTP.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Whether a reference is a full commit id.
fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64)
        && reference
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(dir: &Path, arguments: &[&str]) {
        let status = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-C"])
            .arg(dir)
            .args(arguments)
            .env("GIT_COMMITTER_DATE", "2020-02-02T02:02:02Z")
            .env("GIT_AUTHOR_DATE", "2020-02-02T02:02:02Z")
            .stdout(Stdio::null())
            .status()
            .expect("git runs");
        assert!(status.success(), "git {arguments:?}");
    }

    #[test]
    fn a_branch_is_resolved_and_checked_out() {
        let dir = tempfile::tempdir().expect("temp dir");
        let origin = dir.path().join("origin");
        std::fs::create_dir_all(origin.join("sub")).expect("mkdir");
        git(&origin, &["init", "--quiet", "--initial-branch=main"]);
        std::fs::write(origin.join("sub/file"), "one\n").expect("write");
        git(&origin, &["add", "."]);
        git(&origin, &["commit", "--quiet", "-m", "one"]);
        git(&origin, &["tag", "-a", "v1", "-m", "tagged"]);

        let url = format!("file://{}", origin.display());
        let mut request = GitRequest::parse("git://x#main:sub", Some(&format!("{url}#main:sub")));
        assert_eq!(
            (request.remote.as_str(), request.subdir.as_str()),
            (url.as_str(), "sub")
        );
        let commit = request.resolve().expect("main");
        request.reference = "v1".to_owned();
        assert_eq!(request.resolve().expect("tag"), commit, "a tag stands for its commit");
        let target = dir.path().join("out");
        std::fs::create_dir(&target).expect("mkdir");
        let time = request
            .checkout(&commit, &dir.path().join("mirror"), &target)
            .expect("checkout");
        assert_eq!(time, 1_580_608_922);
        assert_eq!(std::fs::read_to_string(target.join("sub/file")).expect("read"), "one\n");
        assert!(!target.join(".git").exists());

        request.reference = "no-such-branch".to_owned();
        let message = request.resolve().expect_err("no branch").to_string();
        assert!(message.contains("no-such-branch"), "{message}");
        request.reference = "main".to_owned();
        request.checksum = Some("0123".to_owned());
        assert!(matches!(request.resolve(), Err(SourceError::Checksum { .. })));
    }

    #[test]
    fn secrets_of_a_remote_are_not_shown() {
        let mut request = GitRequest::parse("git://example.com/x.git", None);
        request.remote = "https://user:pass@example.com/x.git".to_owned();
        assert_eq!(request.redacted(), "https://example.com/x.git");
    }
}

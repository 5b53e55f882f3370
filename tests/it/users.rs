//! Ordinary users for tests: `cbs` run by somebody who is not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::env::{Said, TestEnv};

/// The account with ranges; made when it is missing, and left for the next run.
const WITH_RANGES: &str = "cbs-it";
/// A number that is nobody's account.
const WITHOUT_ACCOUNT: u32 = 54_321;

/// A user in a world, with a home of his own below it.
pub(crate) struct User<'a> {
    env: &'a TestEnv,
    uid: u32,
    gid: u32,
    home: PathBuf,
    /// The program where every user can reach it.
    cbs: PathBuf,
    /// Said before the command, in a mount namespace of its own.
    setup: String,
}

impl<'a> User<'a> {
    /// One with ranges in `/etc/subuid` and `/etc/subgid`.
    pub(crate) fn with_ranges(env: &'a TestEnv) -> Self {
        Self::with_ranges_named(env, "ranges")
    }

    /// The same with a home of another name.
    pub(crate) fn with_ranges_named(env: &'a TestEnv, name: &str) -> Self {
        /// Two tests must not make the account at once.
        static ACCOUNT: Mutex<()> = Mutex::new(());
        let _guard = ACCOUNT.lock().unwrap_or_else(PoisonError::into_inner);
        if env.tool("id", &["-u", WITH_RANGES]).code != 0 {
            env.tool(
                "useradd",
                &["--no-create-home", "--shell", "/usr/sbin/nologin", WITH_RANGES],
            )
            .ok();
        }
        for (file, flag) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
            let text = fs::read_to_string(file).unwrap_or_default();
            if !text.contains(&format!("{WITH_RANGES}:")) {
                env.tool("usermod", &[flag, "3000000-3065535", WITH_RANGES]).ok();
            }
        }
        let id = |flag| {
            let text = env.tool("id", &[flag, WITH_RANGES]).ok().stdout;
            text.trim().parse().expect("a number")
        };
        Self::new(env, name, id("-u"), id("-g"))
    }

    /// One whom `/etc/subuid` does not know.
    pub(crate) fn with_one_id(env: &'a TestEnv) -> Self {
        Self::new(env, "single", WITHOUT_ACCOUNT, WITHOUT_ACCOUNT)
    }

    fn new(env: &'a TestEnv, name: &str, uid: u32, gid: u32) -> Self {
        // The temporary folder is the test's own, and the checkout may be below a home that nobody may enter.
        fs::set_permissions(env.dir(), fs::Permissions::from_mode(0o755)).expect("open the world");
        let cbs = env.path("cbs");
        let program = env!("CARGO_BIN_EXE_cbs");
        if !cbs.exists() {
            fs::hard_link(program, &cbs)
                .or_else(|_| fs::copy(program, &cbs).map(drop))
                .expect("the program");
        }
        let home = env.path(name);
        fs::create_dir(&home).expect("home");
        chown(&home, Some(uid), Some(gid)).expect("chown");
        // Everybody may use these where udev runs; a bare machine may have them for root only.
        let mut setup = Vec::new();
        for (device, name, minor) in [("/dev/fuse", "fuse", "229"), ("/dev/net/tun", "tun", "200")] {
            let node = env.at(name);
            if !env.path(name).exists() {
                env.tool("mknod", &["-m", "0666", &node, "c", "10", minor]).ok();
            }
            setup.push(format!("mount --bind {node} {device}"));
        }
        Self {
            env,
            uid,
            gid,
            home,
            cbs,
            setup: setup.join(" && "),
        }
    }

    /// Whom no user namespace is given: the kernel gives none in a chroot.
    pub(crate) fn without_namespaces(mut self) -> Self {
        let root = self.env.at("chroot");
        fs::create_dir(&root).expect("mkdir");
        self.setup = format!(
            "{} && mount --rbind / {root} && cd {root} && set -- chroot {root} \"$@\"",
            self.setup
        );
        self
    }

    pub(crate) fn home(&self) -> &PathBuf {
        &self.home
    }

    /// A path in his home, as text.
    pub(crate) fn at(&self, name: &str) -> String {
        self.home.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// `cbs` as this user: the process that is started becomes the command, so that a signal to it reaches it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let (uid, gid) = (self.uid, self.gid);
        let script = format!(
            "here=$PWD && set -- setpriv --reuid {uid} --regid {gid} --clear-groups --inh-caps=-all -- \
             env -C \"$here\" \"$@\" && {} && exec \"$@\"",
            self.setup
        );
        let mut command = self.env.command("unshare");
        command
            .args(["--mount", "sh", "-c", &script, "sh"])
            .arg(&self.cbs)
            .args(args)
            .env("HOME", &self.home)
            .env_remove("CBS_STORE")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn cbs(&self, args: &[&str]) -> Said {
        self.command(args).output().expect("cbs starts").into()
    }

    /// A script in his home, among the mounts that a process of his sees.
    pub(crate) fn inside(&self, process: u32, script: &str) -> Said {
        let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
        let script = format!("cd {} && {script}", self.home.display());
        let mut command = self.env.command("nsenter");
        command.args(["--mount", "--target", &process.to_string(), "setpriv", "--reuid", &uid]);
        command.args(["--regid", &gid, "--clear-groups", "sh", "-c", &script]);
        command.output().expect("nsenter must be installed").into()
    }

    /// As [`TestEnv::nothing_left`], for his own store.
    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        self.env.nothing_left_in(&self.home.join(".local/share/cbs"));
    }
}

//! Commands that are killed, and what must be true afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::leftovers::assert_nothing_left;
use crate::env::TestEnv;

/// Two stages side by side, small files and large ones, a cache mount, a whiteout, a link: some of everything.
const DOCKERFILE: &str = r#"FROM scratch AS base
COPY rootfs /
ARG ROUND
RUN i=0; while [ $i -lt 40 ]; do echo "$ROUND $i" > /f$i; i=$((i+1)); done; ln /f1 /hard; ln -s f2 /soft
FROM base AS one
RUN --mount=type=cache,target=/cache echo $ROUND >> /cache/log; head -c 150000 /bin/busybox > /large; rm /f3
FROM base AS two
COPY files /files/
RUN cat /files/* /f* > /all; chmod 640 /f4; rm -r /files
FROM base
COPY --from=one /large /
COPY --from=two /all /all
RUN rm /f5; echo "$ROUND done" > /end
"#;

/// Builds differ in this; few, so that they meet what others left of them.
const ROUNDS: u64 = 3;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A build with an archive, most of it not yet built.
    Build,
    /// The same with limits, which want cgroups.
    Limited,
    /// Two builds at once.
    BuildTwice,
    /// A build while everything is collected, both killed.
    BuildBesideGc,
    /// Collecting everything.
    Gc,
    /// An export as a layout in a folder.
    Layout,
    /// An export as files.
    Local,
    /// An export as an archive.
    Archive,
}

/// A store that lives through many kills.
pub(super) struct World {
    env: TestEnv,
    /// What the builds give in a quiet store.
    wanted: Vec<Vec<u8>>,
    /// How long commands take when nobody kills them.
    usual: BTreeMap<Kind, Duration>,
    round: u64,
    dead: BTreeSet<u32>,
    pub(super) kills: u64,
    /// Kills of commands that had not ended by themselves.
    pub(super) in_time: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let env = TestEnv::new();
        env.write("ctx/Dockerfile", DOCKERFILE);
        for file in 0..20 {
            env.write(&format!("ctx/files/{file}"), &format!("{file}\n").repeat(file * 200));
        }
        env.busybox("ctx/rootfs");
        let app = format!(
            r#"{{"target": {{"app": {{"context": "{}", "resources": {{"memory": "200m", "cpu-shares": 512}},
                "output": ["type=oci,dest={},compression=zstd"]}}}}}}"#,
            env.at("ctx"),
            env.at("out.tar")
        );
        env.write("bake.json", &app);
        let mut world = Self {
            env,
            wanted: Vec::new(),
            usual: BTreeMap::new(),
            round: 0,
            dead: BTreeSet::new(),
            kills: 0,
            in_time: 0,
        };
        for round in 0..ROUNDS {
            world.round = round;
            let start = Instant::now();
            world.run(Kind::Build);
            for kind in [Kind::Build, Kind::Limited, Kind::BuildTwice, Kind::BuildBesideGc] {
                world.usual.insert(kind, start.elapsed());
            }
            world
                .wanted
                .push(fs::read(world.env.path("out.tar")).expect("an archive"));
        }
        for kind in [Kind::Layout, Kind::Local, Kind::Archive, Kind::Gc] {
            let start = Instant::now();
            world.run(kind);
            world.usual.insert(kind, start.elapsed());
        }
        world
    }

    fn arguments(&self, kind: Kind) -> Vec<String> {
        let env = &self.env;
        let root = env.at("ctx");
        let words = match kind {
            Kind::Build | Kind::BuildTwice | Kind::BuildBesideGc => format!(
                "build|--progress|plain|--build-arg|ROUND={}|--output|type=oci,dest={},compression=zstd|{root}",
                self.round,
                env.at("out.tar"),
            ),
            Kind::Limited => format!(
                "bake|-f|{}|--set|app.args.ROUND={}|app",
                env.at("bake.json"),
                self.round
            ),
            Kind::Gc => "gc|--all".to_owned(),
            Kind::Layout => format!("export|{root}|-o|type=oci,tar=false,dest={}", env.at("layout")),
            Kind::Local => format!("export|{root}|--type|local|-o|{}", env.at("local")),
            Kind::Archive => format!("export|{root}|--type|docker|-o|{}", env.at("docker.tar")),
        };
        words.split('|').map(str::to_owned).collect()
    }

    fn start(&self, kind: Kind) -> Child {
        let words = self.arguments(kind);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.env.cbs_command(&words);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("cbs starts")
    }

    /// Runs a command to its end.
    #[track_caller]
    fn run(&self, kind: Kind) {
        let words = self.arguments(kind);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.env.cbs(&words).ok();
    }

    /// Starts commands of a kind and kills them at some instant.
    pub(super) fn kill(&mut self, kind: Kind, chance: &mut Chance) {
        self.round = (self.round + 1) % ROUNDS;
        if matches!(kind, Kind::Build | Kind::Limited | Kind::BuildTwice | Kind::Gc) && chance.below(3) == 0 {
            // Something to do again, or to collect: what kept the last result goes.
            self.forget();
        }
        let kinds: &[Kind] = match kind {
            Kind::BuildTwice => &[Kind::Build, Kind::Build],
            Kind::BuildBesideGc => &[Kind::Gc, Kind::Build],
            ref one => std::slice::from_ref(one),
        };
        let children: Vec<Child> = kinds.iter().map(|kind| self.start(*kind)).collect();
        std::thread::sleep(chance.instant(self.usual[&kind] * 9 / 10));
        for mut child in children {
            let ended = child.try_wait().expect("wait");
            self.dead.insert(child.id());
            child.kill().unwrap_or_default();
            let output = child.wait_with_output().expect("wait");
            self.kills += 1;
            match ended {
                None => self.in_time += 1,
                Some(status) => assert!(
                    status.success(),
                    "{kind:?} failed by itself:\n{}",
                    String::from_utf8_lossy(&output.stderr)
                ),
            }
        }
    }

    /// Removes all roots: the next build or gc has everything to do.
    fn forget(&self) {
        let env = &self.env;
        for root in env.cbs(&["roots", "--quiet"]).ok().stdout.lines() {
            env.cbs(&["store", "unroot", root]).ok();
        }
        env.cbs(&["gc", "--all"]).ok();
    }

    /// What must be true after kills: the store is clean, the command works and gives what it always gives, and
    /// nothing is left.
    pub(super) fn check(&mut self, kind: Kind) {
        self.verify();
        match kind {
            Kind::Layout | Kind::Local | Kind::Archive => self.check_export(kind),
            Kind::Gc => {
                self.run(kind);
                assert_nothing_left(&self.env, &self.dead);
                self.verify();
                self.check_build();
            }
            _ => self.check_build(),
        }
        assert_nothing_left(&self.env, &self.dead);
    }

    fn verify(&self) {
        let said = self.env.cbs(&["store", "verify"]);
        assert_eq!(said.code, 0, "verify:\n{}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains("all as named"), "{}", said.stdout);
    }

    fn check_build(&self) {
        self.run(Kind::Build);
        let got = fs::read(self.env.path("out.tar")).expect("an archive");
        assert!(
            got == self.wanted[self.round as usize],
            "a build after a kill gives other bytes"
        );
    }

    fn check_export(&self, kind: Kind) {
        // An earlier kill may have been in the build of another round; that is no matter of exports.
        self.check_build();
        self.run(kind);
        let env = &self.env;
        let end = format!("{} done\n", self.round);
        match kind {
            Kind::Local => assert_eq!(fs::read_to_string(env.path("local/end")).expect("a file"), end),
            Kind::Archive => {
                let archive = format!("docker-archive:{}", env.at("docker.tar"));
                env.tool("skopeo", &["inspect", &archive]).ok();
            }
            _ => {
                env.tool("skopeo", &["inspect", &format!("oci:{}", env.at("layout"))])
                    .ok();
            }
        }
    }

    /// At the end: everything goes when it is no longer wanted.
    pub(super) fn finish(&self) {
        self.forget();
        self.verify();
        let files = walk(&self.env.path("store/blobs"));
        assert_eq!(files, 0, "blob files that nothing keeps");
        assert_nothing_left(&self.env, &self.dead);
    }
}

fn walk(folder: &std::path::Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        count += if entry.path().is_dir() { walk(&entry.path()) } else { 1 };
    }
    count
}

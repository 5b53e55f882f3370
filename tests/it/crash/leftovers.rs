//! What may be left of a command that is no more: mounts in any namespace, processes, cgroups, scratch, temporary files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::env::TestEnv;

/// Everything found, in words; empty when nothing is left. `dead` are the ids of commands that were killed.
pub(crate) fn leftovers(env: &TestEnv, dead: &BTreeSet<u32>) -> Vec<String> {
    let mut found = processes(env);
    found.extend(own_mounts(env));
    found.extend(groups(dead));
    found.extend(list(&env.path("store/work")).map(|path| format!("scratch {}", path.display())));
    found.extend(list(Path::new("/run/netns")).filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        name.contains("cbs").then(|| format!("network namespace {name}"))
    }));
    found.extend(temporary_files(env.dir()));
    found
}

/// The same, once what is dying has had a moment to do so.
#[track_caller]
pub(crate) fn assert_nothing_left(env: &TestEnv, dead: &BTreeSet<u32>) {
    let mut found = Vec::new();
    for _ in 0..20 {
        found = leftovers(env, dead);
        if found.is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("left behind:\n{}", found.join("\n"));
}

fn list(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// Processes that name this world in their arguments, or in whose mount namespace something of its store is mounted.
fn processes(env: &TestEnv) -> Vec<String> {
    let (here, store) = (env.at(""), env.at("store"));
    let mut found = Vec::new();
    for process in list(Path::new("/proc")) {
        let read = |name: &str| fs::read(process.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let Ok(line) = read("cmdline") else { continue };
        let line = line.replace('\0', " ");
        let names_us = line.contains(&here) && !line.contains("docker-registry");
        let mounts = read("mountinfo").unwrap_or_default();
        let mounts_us = mounts
            .lines()
            .any(|mount| mount.contains(&store) && !is_store_itself(mount, env));
        if names_us || mounts_us {
            found.push(format!("process {} `{}`", process.display(), line.trim()));
        }
    }
    found
}

fn own_mounts(env: &TestEnv) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let ours = mounts
        .lines()
        .filter(|mount| mount.contains(&env.at("")) && !is_store_itself(mount, env));
    ours.map(|mount| format!("mount {mount}")).collect()
}

/// Some tests have their store on a file system of its own.
fn is_store_itself(mount: &str, env: &TestEnv) -> bool {
    mount.split(' ').nth(4) == Some(&env.at("store")) || mount.split(' ').nth(4) == Some(&env.at("disk"))
}

/// Cgroups of killed commands: their names begin with the process.
fn groups(dead: &BTreeSet<u32>) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = waiting.pop() {
        for path in list(&folder).filter(|path| path.is_dir() && !path.is_symlink()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut parts = name.split('-');
            let owner = (parts.next() == Some("cbs"))
                .then(|| parts.next()?.parse().ok())
                .flatten();
            if owner.is_some_and(|pid: u32| dead.contains(&pid)) {
                found.push(format!("cgroup {}", path.display()));
            }
            waiting.push(path);
        }
    }
    found
}

/// Files that commands make beside their outputs, anywhere but in the store.
fn temporary_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in list(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".cbs-tmp") || name.ends_with(".tmp") || name.starts_with(".cbs-") {
            found.push(format!("temporary file {}", path.display()));
        }
        if path.is_dir() && !path.is_symlink() && !name.starts_with("store") && name != "registry" {
            found.extend(temporary_files(&path));
        }
    }
    found
}

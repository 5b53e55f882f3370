//! Ssh agents in RUN steps: real agents, keys in files, several ids.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::env::{Said, TestEnv};
use crate::steps::{build, out, world};

/// A real agent, ended on drop.
struct Agent {
    child: Child,
    socket: String,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that is gone already is no failure.
        self.child
            .kill()
            .and_then(|()| self.child.wait().map(drop))
            .unwrap_or_default();
    }
}

fn agent(env: &TestEnv, name: &str) -> Agent {
    let socket = env.at(name);
    let child = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .spawn()
        .expect("openssh-client must be installed");
    let start = Instant::now();
    while !env.path(name).exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "ssh-agent does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    Agent { child, socket }
}

/// Makes a key; gives its public half as agents list it.
fn key(env: &TestEnv, name: &str, passphrase: &str) -> String {
    let args = ["-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", &env.at(name)];
    env.tool("ssh-keygen", &args).ok();
    let public = std::fs::read_to_string(env.path(&format!("{name}.pub"))).expect("public key");
    public.trim().to_owned()
}

fn add(env: &TestEnv, agent: &Agent, key: &str) {
    let mut command = env.command("ssh-add");
    let said: Said = command
        .args(["-q", &env.at(key)])
        .env("SSH_AUTH_SOCK", &agent.socket)
        .output()
        .expect("ssh-add")
        .into();
    said.ok();
}

/// A world whose base image has `ssh-add`.
fn world_with_ssh() -> TestEnv {
    let env = world();
    let script = "for f in /usr/bin/ssh-add $(ldd /usr/bin/ssh-add | grep -o '/[^ ]*'); do \
                  mkdir -p ctx/rootfs$(dirname $f) && cp -L $f ctx/rootfs$f; done";
    env.tool("sh", &["-c", script]).ok();
    env
}

#[test]
fn agents_and_keys_are_forwarded_by_id_as_root() {
    let env = world_with_ssh();
    let (one, two, three) = (key(&env, "one", ""), key(&env, "two", ""), key(&env, "three", ""));
    let agent = agent(&env, "agent.sock");
    add(&env, &agent, "one");
    // Of whatever mode: it is this process that reads it.
    env.tool("chmod", &["644", &env.at("two")]).ok();
    let keys = format!("deploy={},{}", env.at("two"), env.at("three"));
    let output = format!("type=local,dest={}", env.at("out"));
    env.write(
        "ctx/Dockerfile",
        "FROM scratch AS base\nCOPY rootfs /\n\
         RUN --mount=type=ssh ssh-add -L > /default && stat -c '%a %u %g' $SSH_AUTH_SOCK > /default-mode && \
         echo $SSH_AUTH_SOCK > /default-path\n\
         USER app\nWORKDIR /home/app\n\
         RUN --mount=type=ssh,id=deploy,uid=1000,gid=2000,mode=0620,target=/home/app/s SSH_AUTH_SOCK=/home/app/s ssh-add -L > deploy && \
         stat -c '%a %u %g' /home/app/s > mode\n\
         RUN --mount=type=ssh,id=none test ! -e /run/buildkit/ssh_agent.0\n",
    );
    let said: Said = env
        .cbs_command(&[
            "build",
            "--progress",
            "plain",
            "--ssh",
            "default",
            "--ssh",
            &keys,
            "--output",
            &output,
            "ctx",
        ])
        .env("SSH_AUTH_SOCK", &agent.socket)
        .output()
        .expect("cbs starts")
        .into();
    said.ok();
    assert_eq!(out(&env, "default").trim(), one);
    assert_eq!(out(&env, "default-mode"), "600 0 0\n");
    assert_eq!(out(&env, "default-path"), "/run/buildkit/ssh_agent.0\n");
    assert_eq!(out(&env, "home/app/deploy").lines().collect::<Vec<_>>(), [two, three]);
    assert_eq!(out(&env, "home/app/mode"), "620 1000 2000\n");
    for stub in ["run", "home/app/s"] {
        assert!(!crate::steps::has(&env, stub), "{stub} was left in the image");
    }
    drop(agent);
    env.nothing_left();
}

#[test]
fn steps_can_use_keys_and_not_change_them_as_root() {
    let env = world_with_ssh();
    key(&env, "one", "");
    let agent = agent(&env, "agent.sock");
    add(&env, &agent, "one");
    let ssh = format!("default={}", agent.socket);
    build(
        &env,
        "RUN --mount=type=ssh ! ssh-add -D && ssh-add -l\n",
        &["--ssh", &ssh],
    )
    .ok();
}

#[test]
fn what_is_wrong_with_ssh_is_said_as_root() {
    let env = world_with_ssh();
    key(&env, "locked", "a passphrase");
    let step = "RUN --mount=type=ssh,required=true true\n";
    build(&env, step, &[]).fails_with(&["ssh agent `default` was not given", "--ssh default"]);
    build(&env, step, &["--ssh", "default"]).fails_with(&["SSH_AUTH_SOCK"]);
    build(&env, step, &["--ssh", &format!("default={}", env.at("nothing"))]).fails_with(&["nothing"]);
    build(&env, step, &["--ssh", &format!("default={}", env.at("locked"))])
        .fails_with(&["locked", "password", "agent"]);
    let mut gone = agent(&env, "gone.sock");
    gone.child.kill().and_then(|()| gone.child.wait()).expect("kill");
    build(&env, step, &["--ssh", &format!("default={}", gone.socket)])
        .fails_with(&["cannot reach the ssh agent", "gone.sock"]);
    env.nothing_left();
}

//! `ADD http…`: what is asked of servers, what becomes of their answers, and what is said when they are no good.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cbs_solver::llb::{DefinitionBuilder, Edge};
use cbs_solver::{pb, write_definition};

use crate::env::{Said, TestEnv};
use crate::site::{Answer, Site};
use crate::steps::Running;

/// Builds a Dockerfile of `FROM scratch` and these lines into `out`.
fn build(env: &TestEnv, lines: &str, flags: &[&str]) -> Said {
    env.write("ctx/Dockerfile", &format!("FROM scratch\n{lines}\n"));
    fs::remove_dir_all(env.path("out")).unwrap_or_default();
    let output = format!("type=local,dest={}", env.at("out"));
    let mut args = vec!["build", "--progress=plain", "--output", &output, "ctx"];
    args.extend_from_slice(flags);
    env.cbs(&args)
}

fn out(env: &TestEnv, path: &str) -> String {
    let path = env.path("out").join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

fn sum(env: &TestEnv, program: &str, text: &str) -> String {
    env.write("summed", text);
    let said = env.tool(program, &[&env.at("summed")]).ok();
    said.stdout.split(' ').next().expect("a sum").to_owned()
}

#[test]
fn checksums_of_every_algorithm_hold() {
    let env = TestEnv::new();
    let site = Site::serve(|_| Answer::ok("text\n"));
    for (algorithm, program) in [
        ("sha256", "sha256sum"),
        ("sha384", "sha384sum"),
        ("sha512", "sha512sum"),
    ] {
        let right = format!("{algorithm}:{}", sum(&env, program, "text\n"));
        let wrong = format!("{algorithm}:{}", sum(&env, program, "other\n"));
        let add = |sum: &str| format!("ADD --checksum={sum} {} /", site.url("/f"));
        build(&env, &add(&wrong), &[]).fails_with(&["Dockerfile:2", "checksum mismatch", "/f", &wrong, &right]);
        build(&env, &add(&right), &[]).ok();
        assert_eq!(out(&env, "f"), "text\n");
        site.asked();
        build(&env, &add(&right), &["--no-cache"]).ok();
        assert!(
            site.asked().is_empty(),
            "{algorithm}: what is here and known is not asked for"
        );
        build(&env, &add(&wrong), &["--offline"]).fails_with(&["checksum mismatch", &wrong, &right]);
    }
    let url = site.url("/f");
    for (flag, sources, needle) in [
        (
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            url.as_str(),
            "sha256, sha384 or sha512",
        ),
        ("sha256:123", &url, "invalid checksum digest format: sha256:123"),
        ("sha256", &url, "invalid checksum digest format"),
        (
            &format!("sha256:{}", "0".repeat(64)),
            &format!("{url} {url}"),
            "multiple sources",
        ),
        (
            &format!("sha256:{}", "0".repeat(64)),
            "Dockerfile",
            "requires HTTP(S) or Git sources",
        ),
    ] {
        build(&env, &format!("ADD --checksum={flag} {sources} /"), &[]).fails_with(&["Dockerfile:2", needle]);
    }
    env.nothing_left();
}

#[test]
fn times_of_servers_are_kept_and_used_to_ask_again() {
    let env = TestEnv::new();
    let first = "Sun, 02 Feb 2020 02:02:02 GMT";
    let site = Site::serve(move |asked| match asked.header("if-modified-since") {
        since if since == first && asked.path == "/f" => Answer::status(304),
        _ => Answer::ok(format!("{}\n", asked.path)).with("Last-Modified", first),
    });
    let add = format!("ADD {} /", site.url("/f"));
    build(&env, &add, &[]).ok();
    assert_eq!(env.path("out/f").metadata().expect("f").mtime(), 1_580_608_922);
    site.asked();
    for flags in [&[][..], &["--no-cache"]] {
        build(&env, &add, flags).ok();
        let asked = site.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert_eq!(asked[0].header("if-modified-since"), first);
        assert_eq!(out(&env, "f"), "/f\n");
    }
    // A server that says "as you have it" to somebody who has nothing is not believed.
    let odd = Site::serve(|_| Answer::status(304));
    build(&env, &format!("ADD {} /", odd.url("/g")), &[]).fails_with(&["/g", "304", "Dockerfile:2"]);
}

#[test]
fn tags_of_servers_are_sent_back_as_they_came() {
    let env = TestEnv::new();
    let version = Arc::new(AtomicU32::new(1));
    let now = Arc::clone(&version);
    let site = Site::serve(move |asked| {
        let tag = format!("W/\"v{}\"", now.load(Ordering::SeqCst));
        let answer = match asked.header("if-none-match") == tag {
            true => Answer::status(304),
            false => Answer::ok(format!("{tag}\n")),
        };
        answer
            .with("ETag", &tag)
            .with("Last-Modified", "Sun, 02 Feb 2020 02:02:02 GMT")
    });
    let add = format!("ADD {} /", site.url("/f"));
    build(&env, &add, &[]).ok();
    build(&env, &add, &[]).ok();
    assert_eq!(site.asked()[1].header("if-none-match"), "W/\"v1\"");
    version.store(2, Ordering::SeqCst);
    build(&env, &add, &[]).ok();
    assert_eq!(out(&env, "f"), "W/\"v2\"\n");
    // What was there before is still known by its checksum.
    let before = format!("sha256:{}", sum(&env, "sha256sum", "W/\"v1\"\n"));
    site.asked();
    build(&env, &format!("ADD --checksum={before} {} /", site.url("/f")), &[]).ok();
    assert_eq!(out(&env, "f"), "W/\"v1\"\n");
    assert!(site.asked().is_empty());
}

#[test]
fn names_modes_and_owners_of_downloads() {
    let env = TestEnv::new();
    let site = Site::serve(|_| Answer::ok("x").with("Content-Disposition", "attachment; filename=other"));
    let lines = [
        format!("ADD {} /", site.url("/dir/plain.txt?x=/y#z")),
        format!("ADD {} /", site.url("/a%20b")),
        format!("ADD {} /d/", site.url("/")),
        format!("ADD {} /renamed", site.url("/f")),
        format!("ADD --chmod=4755 --chown=5:7 {} /owned", site.url("/g")),
        format!("ADD --chmod=u+x,go=r {} /symbolic", site.url("/h")),
        format!("ADD --link --chmod=640 {} /link/", site.url("/i")),
    ];
    let tar = format!("type=tar,dest={}", env.at("out.tar"));
    build(&env, &lines.join("\n"), &["--output", &tar]).ok();
    let listing = env
        .tool("tar", &["--numeric-owner", "-tvf", &env.at("out.tar")])
        .ok()
        .stdout;
    let rows: BTreeMap<String, String> = listing
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[5..].join(" "), format!("{} {}", words[0], words[1]))
        })
        .collect();
    for (name, row) in [
        ("plain.txt", "-rw------- 0/0"),
        ("a b", "-rw------- 0/0"),
        ("d/__unnamed__", "-rw------- 0/0"),
        ("renamed", "-rw------- 0/0"),
        ("owned", "-rwsr-xr-x 5/7"),
        ("symbolic", "-rwxr--r-- 0/0"),
        ("link/i", "-rw-r----- 0/0"),
    ] {
        assert_eq!(rows.get(name).map(String::as_str), Some(row), "{name} in\n{listing}");
    }
    assert!(!listing.contains("other"), "{listing}");
}

#[test]
fn archives_are_unpacked_when_that_is_asked_for() {
    let env = TestEnv::new();
    env.write("tree/in/file", "in the archive\n");
    for (flag, name) in [("-cf", "a.tar"), ("-czf", "a.tar.gz"), ("-cJf", "a.tar.xz")] {
        env.tool("tar", &[flag, &env.at(name), "-C", &env.at("tree"), "."]).ok();
    }
    let folder = env.dir().to_owned();
    let site = Site::serve(move |asked| match fs::read(folder.join(&asked.path[1..])) {
        Ok(body) => Answer::ok(body),
        Err(_) => Answer::status(404),
    });
    for name in ["a.tar", "a.tar.gz", "a.tar.xz"] {
        let url = site.url(&format!("/{name}"));
        for (flag, file) in [("", format!("d/{name}")), ("--unpack=true", "d/in/file".to_owned())] {
            build(&env, &format!("ADD {flag} {url} /d/"), &[]).ok();
            assert!(env.path("out").join(&file).is_file(), "{flag} {name}: no {file}");
        }
        build(&env, &format!("ADD --unpack=false {url} /d/"), &[]).ok();
        assert!(env.path("out/d").join(name).is_file());
    }
    // What is no archive stays a file.
    build(&env, &format!("ADD --unpack {} /d/", site.url("/tree/in/file")), &[]).ok();
    assert_eq!(out(&env, "d/file"), "in the archive\n");
    build(&env, &format!("ADD --unpack=maybe {} /", site.url("/a.tar")), &[]).fails_with(&["Dockerfile:2", "unpack"]);
}

#[test]
fn redirects_are_followed_to_an_end() {
    let env = TestEnv::new();
    let other = Site::serve(|_| Answer::ok("from elsewhere\n"));
    let far = other.url("/real-name");
    let site = Site::serve(move |asked| match asked.path.as_str() {
        "/far" => Answer::moved(302, &far),
        "/permanent" => Answer::moved(301, "/temporary"),
        "/temporary" => Answer::moved(307, "/end"),
        "/end" => Answer::ok("at the end\n"),
        "/nowhere" => Answer::status(302),
        "/file" => Answer::moved(302, "file:///etc/passwd"),
        _ => Answer::moved(302, "/circle"),
    });
    build(&env, &format!("ADD {} /", site.url("/far")), &[]).ok();
    assert_eq!(
        out(&env, "far"),
        "from elsewhere\n",
        "the name is that of the address which was written"
    );
    build(&env, &format!("ADD {} /", site.url("/permanent")), &[]).ok();
    assert_eq!(out(&env, "permanent"), "at the end\n");
    build(&env, &format!("ADD {} /", site.url("/circle")), &[]).fails_with(&["/circle", "redirect", "Dockerfile:2"]);
    build(&env, &format!("ADD {} /", site.url("/file")), &[]).fails_with(&["/file", "Dockerfile:2"]);
    build(&env, &format!("ADD {} /", site.url("/nowhere")), &[]).fails_with(&["/nowhere", "302", "Dockerfile:2"]);
    env.nothing_left();
}

#[test]
fn refusals_of_servers_are_told() {
    let env = TestEnv::new();
    let site = Site::serve(|asked| Answer::status(asked.path[1..].parse().unwrap_or(404)));
    for (status, times) in [(400, 1), (401, 1), (403, 1), (404, 1), (410, 1), (500, 4)] {
        let url = site.url(&format!("/{status}"));
        build(&env, &format!("ADD {url} /"), &[]).fails_with(&[&url, &status.to_string(), "Dockerfile:2"]);
        assert_eq!(site.asked().len(), times, "how often {status} is asked for");
    }
    // A server that recovers is nobody's failure.
    let count = AtomicU32::new(0);
    let shaky = Site::serve(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::status(502),
        _ => Answer::ok("at last\n"),
    });
    build(&env, &format!("ADD {} /", shaky.url("/f")), &[]).ok();
    assert_eq!(out(&env, "f"), "at last\n");
    build(&env, "ADD http://127.0.0.1:1/f /", &[]).fails_with(&["http://127.0.0.1:1/f", "refused", "Dockerfile:2"]);
    env.nothing_left();
}

#[test]
fn bodies_that_break_off_are_not_taken_for_whole() {
    let env = TestEnv::new();
    let body = "0123456789".repeat(20_000);
    let whole = body.clone();
    let torn = Arc::new(AtomicU32::new(1));
    let is_torn = Arc::clone(&torn);
    let site = Site::serve(
        move |asked| match (is_torn.load(Ordering::SeqCst), asked.path.as_str()) {
            (1, "/chunked") => Answer::torn_chunk(body.clone()),
            (1, _) => Answer::torn(body.clone()),
            _ => Answer::ok(body.clone()),
        },
    );
    for path in ["/length", "/chunked"] {
        let add = format!("ADD {} /", site.url(path));
        build(&env, &add, &[]).fails_with(&["Dockerfile:2", &site.url(path)]);
        build(&env, &add, &["--offline"]).fails_with(&["not in the store"]);
    }
    torn.store(0, Ordering::SeqCst);
    build(&env, &format!("ADD {} /", site.url("/length")), &[]).ok();
    assert_eq!(out(&env, "length"), whole);
    env.cbs(&["gc", "--all"]).ok();
    env.cbs(&["store", "verify"]).ok();
    env.nothing_left();
}

#[test]
fn a_server_that_never_answers_can_be_left() {
    let env = TestEnv::new();
    let site = Site::serve(|_| Answer::never());
    env.write("ctx/Dockerfile", &format!("FROM scratch\nADD {} /\n", site.url("/f")));
    let mut command = env.cbs_command(&["build", "ctx"]);
    let mut child = Running(command.stderr(Stdio::null()).spawn().expect("cbs starts"));
    let start = Instant::now();
    while !site.was_asked_for("/f") {
        assert!(start.elapsed() < Duration::from_secs(120), "it does not ask");
        std::thread::sleep(Duration::from_millis(20));
    }
    env.tool("kill", &["-INT", &child.0.id().to_string()]).ok();
    assert_eq!(child.0.wait().expect("wait").code(), Some(130));
    env.nothing_left();
}

/// A definition of one download.
fn definition(env: &TestEnv, url: &str, attrs: &[(&str, &str)]) {
    let source = pb::SourceOp {
        identifier: url.to_owned(),
        attrs: attrs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
    };
    let op = pb::Op {
        op: Some(pb::op::Op::Source(source)),
        ..Default::default()
    };
    let mut builder = DefinitionBuilder::default();
    let digest = builder.add(&op, pb::OpMetadata::default());
    let mut bytes = Vec::new();
    write_definition(&builder.definition(Some(Edge::first(digest))), &mut bytes).expect("encodes");
    fs::write(env.path("graph.pb"), bytes).expect("write");
}

#[test]
fn definitions_say_more_than_dockerfiles_can() {
    let env = TestEnv::new();
    let site = Site::serve(|asked| {
        let answer = Answer::ok(format!("{} {}\n", asked.header("accept"), asked.header("x-thing")));
        match asked.path.as_str() {
            "/named" => answer.with("Content-Disposition", "attachment; filename=\"from server.txt\""),
            "/path" => answer.with("Content-Disposition", "attachment; filename=../../up/here"),
            "/bad" => answer.with("Content-Disposition", "attachment; filename=\"..\""),
            "/private" if asked.header("authorization") != "bearer s3cret" => Answer::status(401),
            _ => answer,
        }
    });
    let realize = |path: &str, attrs: &[(&str, &str)]| {
        definition(&env, &site.url(path), attrs);
        fs::remove_dir_all(env.path("out")).unwrap_or_default();
        let output = format!("type=local,dest={}", env.at("out"));
        env.cbs(&["realize", "graph.pb", "--output", &output])
    };
    for (path, attrs, name) in [
        ("/named", &[][..], "from server.txt"),
        ("/path", &[], "here"),
        ("/bad", &[], "bad"),
        ("/", &[], "download"),
        ("/named", &[("http.filename", "own")], "own"),
    ] {
        realize(path, attrs).ok();
        let names: Vec<_> = fs::read_dir(env.path("out"))
            .expect("out")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names, [name], "{path} {attrs:?}");
    }
    let attrs = [
        ("http.header.accept", "text/plain"),
        ("http.header.x-thing", "thing"),
        ("http.perm", "0o751"),
        ("http.uid", "5"),
        ("http.gid", "7"),
    ];
    realize("/f", &attrs).ok();
    assert_eq!(out(&env, "f"), "text/plain thing\n");
    let tar = format!("type=tar,dest={}", env.at("out.tar"));
    env.cbs(&["realize", "graph.pb", "--output", &tar]).ok();
    let row = env
        .tool("tar", &["--numeric-owner", "-tvf", &env.at("out.tar"), "f"])
        .ok();
    assert!(row.stdout.starts_with("-rwxr-x--x 5/7"), "{}", row.stdout);
    // Another header may mean another answer, whatever is known of the address.
    realize("/f", &[("http.header.accept", "text/html")]).ok();
    assert_eq!(out(&env, "f"), "text/html \n");
    for (name, value) in [("http.perm", "rwx"), ("http.uid", "root"), ("http.checksum", "md5:1")] {
        realize("/f", &[(name, value)]).fails_with(&[name, value]);
    }
    // A secret is the header, and one that is not given is not left out in silence.
    let private = [("http.authheadersecret", "token")];
    realize("/private", &private).fails_with(&["token", "not found"]);
    assert!(!site.was_asked_for("/private"));
}

//! `RUN --mount` of every type: what a step sees, and what the image does not.

use std::fs;

use crate::steps::{build, has, out, world};

#[test]
fn binds_come_from_contexts_stages_and_images_as_root() {
    let env = world();
    env.write("ctx/src/deep/file", "from the context\n");
    env.write("other/file", "from a named context\n");
    build(
        &env,
        "RUN mkdir -p /made/deep && echo from a stage > /made/deep/file\n\
         FROM scratch AS files\nCOPY src /files\n\
         FROM base\n\
         RUN --mount=target=/all cat /all/src/deep/file > /context && ! touch /all/x\n\
         RUN --mount=source=src/deep/file,target=/one cat /one > /single && ! sh -c 'echo x > /one'\n\
         RUN --mount=from=base,source=/made,target=/m,rw cat /m/deep/file > /stage && echo changed > /m/deep/file && touch /m/new && cat /m/deep/file >> /stage\n\
         RUN --mount=from=base,source=/made,target=/m cat /m/deep/file > /again && ! test -e /m/new\n\
         RUN --mount=from=base,source=/made/deep/file,target=/f,rw echo changed >> /f && cat /f > /single-rw\n\
         RUN --mount=from=files,source=files,target=/empty/point,rw echo scratch > /empty/point/x && cat /empty/point/x > /scratch\n\
         RUN --mount=from=other,target=/o cat /o/file > /named\n\
         WORKDIR /work\n\
         RUN --mount=source=src,target=relative cat /work/relative/deep/file > /relative\n",
        &["--build-context", "other=other"],
    )
    .ok();
    for (file, want) in [
        ("context", "from the context\n"),
        ("single", "from the context\n"),
        ("stage", "from a stage\nchanged\n"),
        ("again", "from a stage\n"),
        ("single-rw", "from a stage\nchanged\n"),
        ("scratch", "scratch\n"),
        ("named", "from a named context\n"),
        ("relative", "from the context\n"),
    ] {
        assert_eq!(out(&env, file), want, "{file}");
    }
    for stub in ["all", "one", "m", "f", "empty", "o", "work/relative"] {
        assert!(!has(&env, stub), "the mount point {stub} is in the image");
    }
    build(&env, "RUN --mount=source=nothing,target=/x true\n", &[]).fails_with(&["/nothing", "not found"]);
    build(&env, "RUN --mount=from=nowhere:5000/x,target=/x true\n", &[]).fails_with(&["nowhere:5000/x"]);
    env.nothing_left();
}

#[test]
fn binds_come_from_images_of_a_registry_as_root() {
    let env = crate::env::TestEnv::with_registry();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\n\
         RUN --mount=from=REGISTRY/cbs-test/busybox:1,target=/whole cmp /whole/bin/busybox /bin/busybox && ! touch /whole/x\n\
         RUN --mount=from=REGISTRY/cbs-test/busybox:1,source=/bin/busybox,target=/tool,rw cmp /tool /bin/busybox && echo x > /tool\n\
         RUN --mount=type=cache,from=REGISTRY/cbs-test/busybox:1,source=/bin,target=/c test -x /c/busybox && echo made > /c/made\n\
         RUN --mount=type=cache,from=REGISTRY/cbs-test/busybox:1,source=/bin,target=/c cat /c/made > /got\n\
         RUN test ! -e /whole && test ! -e /tool && test ! -e /c\n",
    );
    let output = format!("type=local,dest={}", env.at("out"));
    env.cbs(&["build", "--output", &output, "ctx"]).ok();
    assert_eq!(out(&env, "got"), "made\n");
    env.nothing_left();
}

#[test]
fn caches_are_kept_shared_and_kept_apart_as_root() {
    let env = world();
    env.write("ctx/seed/start", "seeded\n");
    // Written by one step, read by the next, in no layer.
    build(
        &env,
        "RUN --mount=type=cache,target=/c echo one > /c/kept\n\
         RUN --mount=type=cache,target=/c cat /c/kept > /read && ! test -e /c/other\n\
         RUN --mount=type=cache,target=/d,id=/c,ro cat /d/kept > /by-id && ! touch /d/x\n\
         RUN --mount=type=cache,target=/c,id=else ! test -e /c/kept\n\
         RUN --mount=type=cache,target=/s,id=seeded,source=seed,from=ctx cat /s/start > /seed && rm /s/start\n\
         RUN --mount=type=cache,target=/s,id=seeded,source=seed,from=ctx ! test -e /s/start\n\
         RUN --mount=type=cache,target=/o,id=owned,uid=1000,gid=2000,mode=0750 stat -c '%a %u %g' /o > /owner\n\
         USER app\n\
         RUN --mount=type=cache,target=/o,id=owned,uid=1000,gid=2000,mode=0750 touch /o/mine\n",
        &["--build-context", "ctx=ctx"],
    )
    .ok();
    assert_eq!(
        (out(&env, "read"), out(&env, "by-id")),
        ("one\n".into(), "one\n".into())
    );
    assert_eq!(
        (out(&env, "seed"), out(&env, "owner")),
        ("seeded\n".into(), "750 1000 2000\n".into())
    );
    for stub in ["c", "d", "s", "o"] {
        assert!(!has(&env, stub), "the mount point {stub} is in the image");
    }
    // It outlives gc that keeps recent things, and is named in what `du` says.
    env.cbs(&["gc"]).ok();
    let du = env.cbs(&["du", "--json"]).ok().stdout;
    let du: serde_json::Value = serde_json::from_str(&du).expect("JSON");
    let ids: Vec<&str> = du["caches"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|cache| cache["id"].as_str())
        .collect();
    // As BuildKit names them: the namespace, which is empty here, and a slash come first.
    for id in ["//c", "/else", "/seeded", "/owned"] {
        assert!(ids.contains(&id), "no {id} in {ids:?}");
    }
    build(&env, "RUN --mount=type=cache,target=/c cat /c/kept > /later\n", &[]).ok();
    assert_eq!(out(&env, "later"), "one\n");
    env.nothing_left();
}

#[test]
fn sharing_says_who_waits_for_whom_as_root() {
    let env = world();
    let steps = |sharing: &str, script: &dyn Fn(&str, &str) -> String| {
        let step = |name: &str, other: &str| {
            format!(
                "FROM base AS {name}\nRUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} \
                 --mount=type=cache,target=/sync,id=sync-{sharing} {}\n",
                script(name, other)
            )
        };
        format!(
            "{}{}FROM scratch\nCOPY --from=a /seen /a\nCOPY --from=b /seen /b\n",
            step("a", "b"),
            step("b", "a")
        )
    };
    // Both run at once and wait until the other one does; only who shares sees what it made.
    let meet = |name: &str, other: &str| {
        format!("touch /c/{name} /sync/{name}; until test -e /sync/{other}; do sleep 0.02; done; ls /c > /seen")
    };
    for (sharing, want) in [("shared", ["a\nb\n", "a\nb\n"]), ("private", ["a\n", "b\n"])] {
        build(&env, &steps(sharing, &meet), &["--jobs", "2", "--no-cache"]).ok();
        assert_eq!([out(&env, "a"), out(&env, "b")], want, "sharing={sharing}");
    }
    // One comes after the other: nobody sees what is there for as long as a step runs.
    let alone = |name: &str, _other: &str| format!("ls /c > /seen; touch /c/{name}; sleep 0.3; rm /c/{name}");
    build(&env, &steps("locked", &alone), &["--jobs", "2", "--no-cache"]).ok();
    assert_eq!([out(&env, "a"), out(&env, "b")], ["", ""]);
    env.nothing_left();
}

#[test]
fn memory_mounts_are_limited_and_leave_nothing_as_root() {
    let env = world();
    build(
        &env,
        "RUN --mount=type=tmpfs,target=/t,size=1m stat -f -c %T /t > /type && stat -c %a /t > /mode && \
         dd if=/dev/zero of=/t/x bs=64k count=16 && ! dd if=/dev/zero of=/t/y bs=64k count=16\n\
         RUN --mount=type=tmpfs,target=/etc ! test -e /etc/passwd && echo x > /etc/new\n\
         RUN df -k /dev/shm | tail -1 | awk '{print $2}' > /shm\n",
        &["--shm-size", "5m"],
    )
    .ok();
    assert_eq!(
        (out(&env, "type"), out(&env, "mode")),
        ("tmpfs\n".into(), "1777\n".into())
    );
    assert_eq!(out(&env, "shm"), "5120\n");
    assert!(!has(&env, "t") && !has(&env, "etc/new") && has(&env, "etc/passwd"));
}

#[test]
fn secrets_are_seen_by_their_step_alone_as_root() {
    let env = world();
    env.write("token", "from a file\n");
    let steps = "RUN --mount=type=secret,id=file cat /run/secrets/file > /file; stat -c '%a %u %g' /run/secrets/file > /mode\n\
         RUN --mount=type=secret,id=variable,env=TOKEN echo \"$TOKEN\" > /env; ! test -e /run/secrets\n\
         RUN --mount=type=secret,id=file,target=/app/key,mode=0440,uid=1000,gid=2000 stat -c '%a %u %g' /app/key > /owner\n\
         RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent\n\
         RUN ! test -e /run/secrets && ! test -e /app && test -z \"$TOKEN\"\n";
    let output = format!("type=local,dest={}", env.at("out"));
    env.write("ctx/Dockerfile", &format!("FROM scratch\nCOPY rootfs /\n{steps}"));
    let file = format!("id=file,src={}", env.at("token"));
    let args = [
        "build",
        "--progress",
        "plain",
        "--secret",
        &file,
        "--secret",
        "id=variable,env=CBS_IT_TOKEN",
        "--output",
        &output,
        "ctx",
    ];
    let said: crate::env::Said = env
        .cbs_command(&args)
        .env("CBS_IT_TOKEN", "from the environment")
        .output()
        .expect("cbs starts")
        .into();
    let said = said.ok();
    assert!(!said.stderr.contains("from the environment"), "{}", said.stderr);
    for (file, want) in [
        ("file", "from a file\n"),
        ("mode", "400 0 0\n"),
        ("env", "from the environment\n"),
        ("owner", "440 1000 2000\n"),
    ] {
        assert_eq!(out(&env, file), want, "{file}");
    }
    assert!(
        !has(&env, "run") && !has(&env, "app"),
        "a mount point of a secret is in the image"
    );
    // Another value is no other step.
    fs::write(env.path("token"), "another value\n").expect("write");
    let said: crate::env::Said = env
        .cbs_command(&args)
        .env("CBS_IT_TOKEN", "x")
        .output()
        .expect("cbs starts")
        .into();
    said.ok();
    assert_eq!(out(&env, "file"), "from a file\n");
    // Without a source it is the variable of that name, or the file; both can be said, too.
    fs::write(env.path("CBS_IT_FILE"), "a file of that name\n").expect("write");
    let step = "RUN --mount=type=secret,id=CBS_IT_TOKEN,env=A --mount=type=secret,id=CBS_IT_FILE,env=B \\\n \
        --mount=type=secret,id=typed,env=C --mount=type=secret,id=file echo $A $B $C > /all; cat /run/secrets/file >> /all\n";
    env.write("ctx/Dockerfile", &format!("FROM scratch\nCOPY rootfs /\n{step}"));
    let said: crate::env::Said = env
        .cbs_command(&[
            "build",
            "--secret",
            "id=CBS_IT_TOKEN",
            "--secret",
            "id=CBS_IT_FILE,src=CBS_IT_FILE",
            "--secret",
            "type=env,id=typed,env=CBS_IT_TOKEN",
            "--secret",
            &format!("type=file,id=file,source={}", env.at("token")),
            "--output",
            &output,
            "ctx",
        ])
        .env("CBS_IT_TOKEN", "by its own name")
        .output()
        .expect("cbs starts")
        .into();
    said.ok();
    assert_eq!(
        out(&env, "all"),
        "by its own name a file of that name by its own name\nanother value\n"
    );
    let step = "RUN --mount=type=secret,id=absent,required=true true\n";
    build(&env, step, &[]).fails_with(&["absent", "--secret id=absent"]);
    build(&env, step, &["--secret", "id=absent,src=/nowhere"]).fails_with(&["/nowhere"]);
    build(&env, step, &["--secret", "src=/etc/passwd"]).fails_with(&["id"]);
    env.nothing_left();
}

#[test]
fn wrong_mounts_name_their_line_and_what_is_allowed_as_root() {
    let env = world();
    for (flag, needles) in [
        ("type=cahce,target=/c", &["Dockerfile:3", "cahce", "cache"][..]),
        ("type=cache", &["Dockerfile:3", "target"]),
        ("type=cache,target=/c,sharing=both", &["Dockerfile:3", "both", "shared"]),
        ("type=tmpfs,target=/c,size=lots", &["Dockerfile:3", "lots"]),
        ("type=secret,id=x,mode=rw", &["Dockerfile:3", "rw"]),
        ("type=bind,target=/", &["Dockerfile:3"]),
        ("type=bind,target=/x,sharing=locked", &["Dockerfile:3", "sharing"]),
    ] {
        build(&env, &format!("RUN --mount={flag} true\n"), &[]).fails_with(needles);
    }
}

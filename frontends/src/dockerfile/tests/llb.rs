//! The graphs that Dockerfiles become.

use super::*;

#[test]
fn stages_and_copies() {
    let text = "FROM alpine AS build\nRUN make\nFROM alpine AS unused\nRUN never\nFROM scratch\nWORKDIR /w\nCOPY --from=build /out/. a* ./\n\
                COPY --chown=app:1 --chmod=u+x x y/ /d/\n";
    insta::assert_snapshot!(llb(text, &[]), @r#"
    v0 file - mkdir /w 755  # [stage-2 1/3] WORKDIR /w :6
    v1 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [build 1/2] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 :1
    v2 exec ["/bin/sh", "-c", "make"] env=["PATH=/bin"] cwd=/
         BIND / <- v1 out=0  # [build 2/2] RUN make :2
    v3 file v0 copy v2:/out -> /w/ wild contents follow parents; action0 copy v2:/a* -> /w/ wild contents follow parents  # [stage-2 2/3] COPY --from=build /out/. a* ./ :7
    v4 source local://context local.followpaths=["x","y"] local.sharedkeyhint=context  # [internal] load build context
    v5 file v3 copy v4:/x -> /d/ owner=app@0:1 mode=u+x wild contents follow parents; action0 copy v4:/y -> /d/ owner=app@0:1 mode=u+x wild contents follow parents  # [stage-2 3/3] COPY --chown=app:1 --chmod=u+x x y/ /d/ :8
    = v5
    "#);
}

#[test]
fn runs() {
    let text = "FROM user\nARG A=1 TOKEN_X\nENV B=2\nRUN --network=none --security=insecure --device=vendor.com/gpu=0,required echo $A \"${B}\" '$B' $C\n\
                SHELL [\"bash\", \"-c\"]\nRUN [\"exec\", \"$A\"]\nRUN <<EOF\none\n$B\nEOF\nRUN <<-X cat\n\ta\n\tX\nRUN <<P\n#!/bin/x\nhi\nP\n";
    let attrs = [
        ("build-arg:HTTP_PROXY", "http://p"),
        ("build-arg:no_proxy", "n"),
        ("add-hosts", "h=1.2.3.4"),
        ("ulimit", "nofile=1:2"),
        ("shm-size", "1024"),
        ("hostname", "me"),
        ("no-cache", ""),
    ];
    insta::assert_snapshot!(llb(text, &attrs), @r##"
    v0 source docker-image://docker.io/library/user:latest@sha256:6f39b641a64e2c89ce3d6a1af2a4f11a7e1b7fdbd94c481ad698dcde8b81b819  # [1/6] FROM docker.io/library/user:latest@sha256:6f39b641a64e2c89ce3d6a1af2a4f11a7e1b7fdbd94c481ad698dcde8b81b819 :1
    v1 exec ["/bin/sh", "-c", "echo $A \"${B}\" '$B' $C"] env=["PATH=/bin", "A=1", "B=2"] cwd=/srv user=app proxy=http://p|n host=h:1.2.3.4 ulimit=nofile:1:2 hostname=me net=NONE sec=INSECURE device=vendor.com/gpu=0
         BIND / <- v0 out=0
         TMPFS /dev/shm <- - size=1024  # [2/6] RUN --network=none --security=insecure --device=vendor.com/gpu=0,required echo 1 "2" '$B' $C (no cache) :4
    v2 exec ["exec", "$A"] env=["PATH=/bin", "A=1", "B=2"] cwd=/srv user=app proxy=http://p|n host=h:1.2.3.4 ulimit=nofile:1:2 hostname=me
         BIND / <- v1 out=0
         TMPFS /dev/shm <- - size=1024  # [3/6] RUN ["exec", "1"] (no cache) :6
    v3 exec ["bash", "-c", "one\n$B\n"] env=["PATH=/bin", "A=1", "B=2"] cwd=/srv user=app proxy=http://p|n host=h:1.2.3.4 ulimit=nofile:1:2 hostname=me
         BIND / <- v2 out=0
         TMPFS /dev/shm <- - size=1024  # [4/6] RUN <<EOF (one...) (no cache) :7 :8 :9 :10
    v4 exec ["bash", "-c", "<<-X cat\n\ta\nX"] env=["PATH=/bin", "A=1", "B=2"] cwd=/srv user=app proxy=http://p|n host=h:1.2.3.4 ulimit=nofile:1:2 hostname=me
         BIND / <- v3 out=0
         TMPFS /dev/shm <- - size=1024  # [5/6] RUN <<-X cat (no cache) :11 :12 :13
    v5 file - mkfile /P 755 "#!/bin/x\nhi\n"  # [internal] preparing inline document
    v6 exec ["bash", "-c", "/dev/pipes/P"] env=["PATH=/bin", "A=1", "B=2"] cwd=/srv user=app proxy=http://p|n host=h:1.2.3.4 ulimit=nofile:1:2 hostname=me
         BIND / <- v4 out=0
         BIND /dev/pipes/ <- v5:/ ro
         TMPFS /dev/shm <- - size=1024  # [6/6] RUN <<P (#!/bin/x...) (no cache) :14 :15 :16 :17
    = v6
    "##);
    insta::assert_snapshot!(history(&lowered(text, &attrs)).join("\n"), @r#"
    ARG A=1 TOKEN_X
    ENV B=2
    * RUN |2 A=1 TOKEN_X= /bin/sh -c echo $A "${B}" '$B' $C # buildkit
    SHELL [bash -c]
    * RUN |2 A=1 TOKEN_X= exec $A # buildkit
    * RUN |2 A=1 TOKEN_X= bash -c one
    $B
     # buildkit
    * RUN |2 A=1 TOKEN_X= bash -c <<-X cat
    	a
    X # buildkit
    * RUN |2 A=1 TOKEN_X= bash -c /dev/pipes/P # buildkit
    "#);
}

#[test]
fn mounts() {
    let text = "FROM alpine AS tool\nFROM alpine\nWORKDIR /w\nARG T=/t\n\
                RUN --mount=target=$T,source=src --mount=type=bind,from=tool,target=rel,rw \\\n \
                --mount=type=cache,target=/c,uid=5,sharing=locked --mount=type=cache,id=x,target=/root/.c,from=tool,source=/seed \\\n \
                --mount=type=tmpfs,target=/tmp,size=1k --mount=type=secret,id=s,env=S --mount=type=secret,id=f,uid=1,mode=440,required \\\n \
                --mount=type=ssh --mount=type=ssh,id=k,target=/sock,required=true echo $S\n";
    insta::assert_snapshot!(llb(text, &[("build-arg:BUILDKIT_CACHE_MOUNT_NS", "ns")]), @r#"
    v0 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [tool 1/1] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 :2 :1
    v1 file v0 mkdir /w 755  # [stage-1 2/3] WORKDIR /w :3
    v2 file - mkdir /cache 755 owner=5:0  # [internal] setting cache mount permissions
    v3 source local://context local.followpaths=["src"] local.sharedkeyhint=context  # [internal] load build context
    v4 exec ["/bin/sh", "-c", "echo $S"] env=["PATH=/bin", "T=/t", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"] cwd=/w secretenv=S=s?
         BIND / <- v1 out=0
         CACHE /c <- v2:/cache id=ns//c LOCKED
         CACHE /root/.c <- v0:/seed id=ns/x SHARED
         BIND /t <- v3:/src ro
         TMPFS /tmp <- - size=1024
         BIND /w/rel <- v0
         SECRET /run/secrets/f <- - id=f 1:0 440 optional=false
         SSH /run/buildkit/ssh_agent.0 <- - id=default 0:0 600 optional=true
         SSH /sock <- - id=k 0:0 600 optional=false  # [stage-1 3/3] RUN --mount=target=/t,source=src --mount=type=bind,from=tool,target=rel,rw  --mount=type=cache,target=/c,uid=5,sharing=locked --mount=type=cache,id=x,target=/root/.c,from=tool,source=/seed  --mount=type=tmpfs,target=/tmp,size=1k --mount=type=secret,id=s,env=S --mount=type=secret,id=f,uid=1,mode=440,required  --mount=type=ssh --mount=type=ssh,id=k,target=/sock,required=true echo **** :5 :6 :7 :8
    = v4
    "#);
}

#[test]
fn adds() {
    let text = "FROM scratch\nADD a.tar https://h/p/f.bin?x=1 git@h:r.git#v1:sub /d/\nADD --unpack=true --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 http://h/x.tgz /x\n\
                ADD --keep-git-dir=true --exclude=*.md https://h/r.git /g\nADD --unpack=false a.tar /b\n";
    insta::assert_snapshot!(llb(text, &[]), @r#"
    v0 source local://context local.followpaths=["a.tar"] local.sharedkeyhint=context  # [internal] load build context
    v1 source https://h/p/f.bin?x=1 http.filename=f.bin  # [1/4] ADD a.tar https://h/p/f.bin?x=1 git@h:r.git#v1:sub /d/ :2
    v2 source git://h/r.git#v1:sub git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=git@h:r.git git.mountsshsock=default  # [1/4] ADD a.tar https://h/p/f.bin?x=1 git@h:r.git#v1:sub /d/ :2
    v3 file - copy v0:/a.tar -> /d/ unpack wild contents follow parents; action0 copy v1:/f.bin -> /d/ parents; action1 copy v2:/ -> /d/ parents  # [1/4] ADD a.tar https://h/p/f.bin?x=1 git@h:r.git#v1:sub /d/ :2
    v4 source http://h/x.tgz http.checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 http.filename=x.tgz  # [2/4] ADD --unpack=true --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 http://h/x.tgz /x :3
    v5 file v3 copy v4:/x.tgz -> /x unpack parents  # [2/4] ADD --unpack=true --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 http://h/x.tgz /x :3
    v6 source git://h/r.git git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h/r.git git.keepgitdir=true  # [3/4] ADD --keep-git-dir=true --exclude=*.md https://h/r.git /g :4
    v7 file v5 copy v6:/ -> /g parents exclude=["*.md"]  # [3/4] ADD --keep-git-dir=true --exclude=*.md https://h/r.git /g :4
    v8 file v7 copy v0:/a.tar -> /b wild contents follow parents  # [4/4] ADD --unpack=false a.tar /b :5
    = v8
    "#);
}

#[test]
fn links_and_parents_and_documents() {
    let text = "FROM alpine\nCOPY --link a b /d/\nCOPY --link --chmod=600 a /e\nCOPY --parents --exclude=!x a/./b/*.c /p/./q.txt /out/\n\
                ENV N=v\nCOPY <<one <<\"two\" /docs/\n$N\none\n$N\ntwo\n";
    insta::assert_snapshot!(llb(text, &[]), @r#"
    v0 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [1/5] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 :1
    v1 source local://context local.followpaths=["a","a/b/*.c","b","p/q.txt"] local.sharedkeyhint=context  # [internal] load build context
    v2 file - copy v1:/a -> /d/ wild contents follow parents; action0 copy v1:/b -> /d/ wild contents follow parents  # [2/5] COPY --link a b /d/ :2
    v3 merge v0 v2  # [2/5] LINK COPY --link a b /d/ :2
    v4 file v3 copy v1:/a -> /e mode=600 wild contents follow parents  # [3/5] COPY --link --chmod=600 a /e :3
    v5 file v4 copy v1:/a -> /out/ wild contents follow parents include=["b/*.c"] exclude=["!x"]; action0 copy v1:/p -> /out/ wild contents follow parents include=["q.txt"] exclude=["!x"] required=["/p/q.txt"]  # [4/5] COPY --parents --exclude=!x a/./b/*.c /p/./q.txt /out/ :4
    v6 file - mkfile /one 644 "v\n"  # [internal] preparing inline document
    v7 file - mkfile /two 644 "$N\n"  # [internal] preparing inline document
    v8 file v5 copy v6:/one -> /docs/ parents; action0 copy v7:/two -> /docs/ parents  # [5/5] COPY <<one <<two /docs/ :6 :7 :8 :9 :10
    = v8
    "#);
    // Over nothing there is nothing to lie on.
    insta::assert_snapshot!(llb("FROM scratch\nCOPY --link a /d\n", &[]), @r#"
    v0 source local://context local.followpaths=["a"] local.sharedkeyhint=context  # [internal] load build context
    v1 file - copy v0:/a -> /d wild contents follow parents  # [1/1] COPY --link a /d :2
    = v1
    "#);
}

#[test]
fn platforms() {
    let text =
        "FROM --platform=$BUILDPLATFORM alpine AS b\nARG TARGETARCH\nRUN make\nFROM alpine\nCOPY --from=b /o /o\n";
    let lowered = lowered(text, &[("platform", "linux/amd64,linux/arm64/v8")]);
    assert!(lowered.index);
    let ids: Vec<String> = lowered
        .platforms
        .iter()
        .map(|result| result.platform.to_string())
        .collect();
    assert_eq!(ids, ["linux/amd64", "linux/arm64"]);
    assert_eq!(lowered.platforms[1].config.architecture, "arm64");
    insta::assert_snapshot!(dump(&lowered.platforms[1].definition), @r#"
    v0 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [linux/arm64 stage-1 1/2] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 on arm64 :4
    v1 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [linux/amd64 b 1/2] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 :1
    v2 exec ["/bin/sh", "-c", "make"] env=["PATH=/bin", "TARGETARCH=arm64"] cwd=/
         BIND / <- v1 out=0  # [linux/amd64->arm64 b 2/2] RUN make :3
    v3 file v0 copy v2:/o -> /o wild contents follow parents  # [linux/arm64 stage-1 2/2] COPY --from=b /o /o :5
    = v3
    "#);
}

#[test]
fn triggers() {
    let text = "FROM trigger\nRUN x\n";
    insta::assert_snapshot!(llb(text, &[]), @r#"
    v0 source docker-image://docker.io/library/trigger:latest@sha256:7df7d28b2de7259b90be77a8a0cc9e58c81551dbc7809370d3f7c319967ed981  # [1/2] FROM docker.io/library/trigger:latest@sha256:7df7d28b2de7259b90be77a8a0cc9e58c81551dbc7809370d3f7c319967ed981 :1
    v1 source docker-image://docker.io/library/tools:latest@sha256:de201aefcb9d9a3060827e1a3f7c9bd96fdc93a261ba43eaef0b56eec0476285  # FROM docker.io/library/tools:latest@sha256:de201aefcb9d9a3060827e1a3f7c9bd96fdc93a261ba43eaef0b56eec0476285 :1
    v2 file v0 copy v1:/t -> /t wild contents follow parents  # [2/4] ONBUILD COPY --from=tools /t /t :1
    v3 exec ["/bin/sh", "-c", "x"] env=["PATH=/bin", "B=1"] cwd=/
         BIND / <- v2 out=0  # [3/4] RUN x :2
    = v3
    "#);
    let text = "FROM alpine AS a\nONBUILD RUN echo $X\nFROM a\nENV X=1\n";
    insta::assert_snapshot!(llb(text, &[]), @r#"
    v0 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [a 1/1] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 :1
    v1 exec ["/bin/sh", "-c", "echo $X"] env=["PATH=/bin"] cwd=/
         BIND / <- v0 out=0  # [stage-1 1/1] ONBUILD RUN echo $X :3
    = v1
    "#);
}

#[test]
fn equal_stages_are_one() {
    let text =
        "FROM alpine AS a\nRUN x\nFROM alpine AS b\nRUN x\nFROM scratch\nCOPY --from=a /1 /1\nCOPY --from=b /1 /2\n";
    insta::assert_snapshot!(llb(text, &[]), @r#"
    v0 source docker-image://docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9  # [b 1/2] FROM docker.io/library/alpine:latest@sha256:8c805a48d8543a1fe5cdcee8aa34f23366aa01f27b7f2e276df99901bbac86a9 :1 :3
    v1 exec ["/bin/sh", "-c", "x"] env=["PATH=/bin"] cwd=/
         BIND / <- v0 out=0  # [b 2/2] RUN x :2 :4
    v2 file - copy v1:/1 -> /1 wild contents follow parents  # [stage-2 1/2] COPY --from=a /1 /1 :6
    v3 file v2 copy v1:/1 -> /2 wild contents follow parents  # [stage-2 2/2] COPY --from=b /1 /2 :7
    = v3
    "#);
}

#[test]
fn the_same_text_gives_the_same_bytes() {
    let text =
        "FROM alpine AS a\nARG A B=2\nLABEL x=1 y=2\nRUN --mount=type=cache,target=/c x\nFROM a\nCOPY --link . /d\n";
    let attrs = [("build-arg:A", "1"), ("build-arg:Z", "2")];
    let first = lowered(text, &attrs).platforms.remove(0);
    let second = lowered(text, &attrs).platforms.remove(0);
    assert_eq!(first.definition.encode_to_vec(), second.definition.encode_to_vec());
    assert_eq!(first.config, second.config);
}

#[test]
fn only_used_paths_are_asked_for() {
    let paths = |text: &str| {
        let graph = llb(text, &[]);
        graph.lines().find(|line| line.contains("local://context")).map(|line| {
            line.split("local.followpaths=")
                .nth(1)
                .map_or("all".to_owned(), |rest| {
                    rest.split(' ').next().unwrap_or_default().to_owned()
                })
        })
    };
    assert_eq!(
        paths("FROM scratch\nCOPY b/../a ./c/* /d/\n").as_deref(),
        Some(r#"["a","c/*"]"#)
    );
    assert_eq!(paths("FROM scratch\nCOPY a .\nCOPY . .\n").as_deref(), Some("all"));
    assert_eq!(
        paths("FROM alpine\nRUN --mount=target=/x,source=s/ x\nADD http://h/f /f\n").as_deref(),
        Some(r#"["s"]"#)
    );
    assert_eq!(paths("FROM alpine\nRUN x\nADD https://h/r.git /r\n"), None);
}

#[test]
fn the_ignore_file_excludes() {
    let lowered = try_lower_with("FROM scratch\nCOPY . /\n", Some("/a/\n!a/b\n# c\n"), &options(&[])).expect("lowers");
    let graph = dump(&lowered.platforms[0].definition);
    assert!(graph.contains(r#"local.excludepatterns=["a","!a/b"]"#), "{graph}");
}

//! The two ways in which steps get at large files, data-only layers and plain FUSE, must not be told apart: the same
//! Dockerfile, full of what could differ, gives the same bytes with either.

use std::fs;

use crate::env::{Said, TestEnv};

/// Reads and sets attributes, which busybox cannot.
const XATTR: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
int main(int argc, char **argv) {
    char value[256], names[1024];
    if (argc == 4) return setxattr(argv[1], argv[2], argv[3], strlen(argv[3]), 0) ? (perror("set"), 1) : 0;
    if (argc == 3) {
        ssize_t length = getxattr(argv[1], argv[2], value, sizeof value);
        if (length < 0) return perror("get"), 1;
        printf("%.*s\n", (int)length, value);
        return 0;
    }
    ssize_t length = listxattr(argv[1], names, sizeof names);
    if (length < 0) return perror("list"), 1;
    for (char *name = names; name < names + length; name += strlen(name) + 1) puts(name);
    return 0;
}
"#;

/// Each step looks at what those before it did, through a fresh view.
const DOCKERFILE: &str = r#"FROM scratch AS base
COPY rootfs /
RUN <<END
set -e
mkdir -p /d/sub/deep /opaque /empty /gone
head -c 1000000 /bin/busybox > /big
head -c 16384 /bin/busybox > /limit
head -c 16385 /bin/busybox > /above
echo small > /small
cp /big /d/big; cp /small /d/small; cp /big /d/sub/big; echo x > /d/sub/deep/x
ln /big /d/big-link; ln /small /d/small-link
cp /big /opaque/old; echo old > /opaque/small
cp /big /gone/big; echo gone > /gone-file
ln -s d/big /to-big; ln -s /nowhere /to-nowhere; mkfifo /pipe
chmod 4755 /above; chown 12:34 /limit; touch -d '2001-02-03 04:05:06' /d/small
truncate -s 3000000 /sparse
END

FROM base AS looked
RUN <<END
set -e
find / -xdev ! -path /stat ! -path '/proc*' ! -path '/sys*' ! -path '/dev*' | sort | while read -r path; do
    stat -c '%n %F %s %a %u %g %h' "$path"
done > /stat
find /d > /order
for file in /capped/big /capped/small /big /small /d; do echo $file; xattr $file; done > /xattrs
for file in /big /limit /above /small /d/big-link /sparse /to-big; do sha256sum "$file"; done > /sums
dd if=/big bs=1 skip=999990 2>/dev/null | wc -c > /tail
[ "$(stat -c %i /big)" = "$(stat -c %i /d/big-link)" ]
[ "$(stat -c %i /small)" = "$(stat -c %i /d/small-link)" ]
[ "$(stat -c %i /big)" != "$(stat -c %i /d/big)" ]
[ "$(stat -c %d /big)" = "$(stat -c %d /small)" ] || echo devices differ
cmp /big /d/big
END

FROM base AS changed
RUN <<END
set -e
echo more >> /big
[ "$(stat -c %s /big)" = 1000005 ]
head -c 1000000 /big | cmp - /d/big
[ "$(stat -c %s /d/big-link)" = 1000000 ]
chmod 700 /capped/big; touch /capped/small; xattr /capped/big > /kept-xattr; xattr /capped/small >> /kept-xattr
echo x >> /capped/small; xattr /capped/small > /lost-xattr
xattr /big user.one first; xattr /big > /own-xattr
chmod 600 /d/big; chown 5:6 /above; touch -d '2010-01-01 00:00:00' /d/sub/big
dd if=/dev/zero of=/limit bs=1 count=1 seek=100 conv=notrunc 2>/dev/null
truncate -s 20000 /above
END
RUN <<END
set -e
mv /d/sub /d/moved
mv /empty /full; echo in > /full/in
rm -r /opaque; mkdir /opaque; echo new > /opaque/new
rm -r /gone; rm /gone-file; mkdir /gone-file; echo now > /gone
rm /to-big; mkdir /to-big
mv /d/small /renamed; mv /sparse /d/sparse
mkdir /d/sub; echo again > /d/sub/new
END
RUN <<END
set -e
[ "$(ls /opaque)" = new ]
[ ! -e /opaque/old ]
[ -f /gone ]; [ -d /gone-file ]; [ -d /to-big ]
[ "$(ls /d/sub)" = new ]; [ "$(cat /d/moved/deep/x)" = x ]
head -c 1000000 /bin/busybox | cmp - /d/moved/big
[ "$(cat /renamed)" = small ]; [ "$(stat -c %h /d/small-link)" = 1 ] || stat -c %h /d/small-link > /links
[ "$(stat -c %s /big)" = 1000005 ]; [ "$(stat -c %a /d/big)" = 600 ]
[ "$(stat -c %s /d/sparse)" = 3000000 ]
cp -a /d /copy; cmp /copy/big /d/big
/bin/busybox true; mkdir /ran; cp /bin/busybox /ran/; /ran/busybox true; rm -r /ran
for file in $(find /d /big /above /limit -type f | sort); do sha256sum "$file"; done > /sums
END

FROM base
RUN --mount=type=bind,from=changed,source=/d,target=/in,rw <<END
set -e
cmp /in/moved/big /in/moved/big
sha256sum /in/big > /bound
echo x >> /in/big; [ "$(stat -c %s /in/big)" = 1000002 ]
rm -r /in/moved; mkdir /in/moved; [ -z "$(ls /in/moved)" ]
END
RUN --mount=type=bind,from=changed,source=/big,target=/one sha256sum /one >> /bound
COPY --from=looked /stat /order /xattrs /sums /tail /looked/
COPY --from=changed / /changed/
"#;

fn world() -> TestEnv {
    let env = TestEnv::new();
    env.write("ctx/Dockerfile", DOCKERFILE);
    env.busybox("ctx/rootfs");
    for applet in ["sha256sum", "cmp", "truncate", "mkfifo", "[", "printf"] {
        std::os::unix::fs::symlink("busybox", env.path("ctx/rootfs/bin").join(applet)).expect("link");
    }
    fs::create_dir(env.path("ctx/rootfs/capped")).expect("mkdir");
    fs::copy("/bin/busybox", env.path("ctx/rootfs/capped/big")).expect("copy");
    env.write("ctx/rootfs/capped/small", "#!/bin/sh\n");
    for file in ["big", "small"] {
        env.tool(
            "setcap",
            &["cap_net_raw+ep", &env.at(&format!("ctx/rootfs/capped/{file}"))],
        )
        .ok();
    }
    env.write("xattr.c", XATTR);
    env.tool(
        "gcc",
        &[
            "-static",
            "-O1",
            "-o",
            &env.at("ctx/rootfs/bin/xattr"),
            &env.at("xattr.c"),
        ],
    )
    .ok();
    env
}

/// Builds the context in a mode, into a store of this world.
fn build_in(env: &TestEnv, store: &str, mode: &str, output: &str) -> Said {
    let store = env.at(store);
    let global = ["--store", &store, "--lower-mode", mode];
    let build = ["build", "--progress", "plain", "--output", output, "ctx"];
    env.cbs(&[&global[..], &build[..]].concat()).ok()
}

#[test]
fn both_modes_give_the_same_bytes_as_root() {
    let env = world();
    let build = |mode: &str| {
        let dest = env.at(&format!("{mode}.tar"));
        let store = format!("store-{mode}");
        let output = format!("type=oci,compression=uncompressed,dest={dest}");
        build_in(&env, &store, mode, &output);
        let store = env.at(&store);
        env.cbs(&["--store", &store, "store", "verify"]).ok();
        fs::read(dest).expect("an archive")
    };
    let (data_only, plain) = (build("data-only"), build("plain"));
    assert!(
        data_only == plain,
        "the modes give different images: look into {}",
        env.dir().display()
    );
    let root = env.at("ctx");
    let cat = |path: &str| {
        env.cbs(&[
            "--store",
            &env.at("store-plain"),
            "store",
            "cat",
            &format!("{root}:{path}"),
        ])
        .ok()
        .stdout
    };
    // No attribute of how cbs does it shows, in either.
    let capped = "/capped/big\nsecurity.capability\n/capped/small\nsecurity.capability\n/big\n/small\n/d\n";
    assert_eq!(cat("/looked/xattrs"), capped);
    assert_eq!(cat("/changed/kept-xattr"), "security.capability\nsecurity.capability\n");
    assert_eq!(
        (cat("/changed/lost-xattr").as_str(), cat("/changed/own-xattr").as_str()),
        ("", "user.one\n")
    );
    assert_eq!(cat("/looked/tail").trim(), "10");
    assert!(
        cat("/looked/stat").contains("/big regular file 1000000 644 0 0 2\n"),
        "{}",
        cat("/looked/stat")
    );
    env.nothing_left();
}

#[test]
fn a_store_changes_its_mode_without_building_again_as_root() {
    let env = world();
    let build = |mode: &str| {
        let output = format!("type=tar,dest={}", env.at("out.tar"));
        build_in(&env, "store", mode, &output)
    };
    build("plain");
    for mode in ["data-only", "plain"] {
        let said = build(mode);
        // `#5 [changed 1/3] RUN …` and then `#5 CACHED`.
        for (number, _) in said
            .stderr
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(_, rest)| rest.contains("RUN"))
        {
            assert!(said.stderr.contains(&format!("{number} CACHED\n")), "{}", said.stderr);
        }
    }
    env.cbs(&["--lower-mode", "fast", "build", "ctx"])
        .fails_with(&["fast", "data-only", "plain"]);
}

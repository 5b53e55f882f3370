//! `cbs shell` is in the step it names: what the build was given, the step has again.

use crate::env::Said;
use crate::failing::shell;
use crate::steps::{build, world};
use crate::web::Web;

#[test]
fn sources_are_what_the_step_saw_as_root() {
    let env = world();
    env.write("www/file", "first\n");
    let web = Web::serve(env.path("www"), None);
    let step = format!("ADD {}/file /file\nRUN cat /file\nRUN cat /file && false\n", web.url());
    build(&env, &step, &[]).fails_with(&["exit code: 1"]);
    env.write("www/file", "second\n");
    web.asked();
    let seen = |args: &[&str]| shell(&env, args, "cat /file\n").ok().stdout;
    assert_eq!(seen(&["ctx"]), "first\n");
    assert_eq!(seen(&["ctx#RUN cat /file &&", "--before"]), "first\n");
    assert_eq!(web.asked(), Vec::<String>::new(), "what is here is not asked for");
    // A build that ended well is remembered the same way, and one of today is of today.
    let step = step.replace(" && false", " && true");
    build(&env, &step, &[]).ok();
    env.write("www/file", "third\n");
    assert_eq!(seen(&["ctx", "--before"]), "second\n");
    assert_eq!(seen(&["ctx"]), "second\n");
    env.nothing_left();
}

#[test]
fn limits_hold_in_shells_as_root() {
    let env = world();
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY rootfs /\nRUN true\n");
    let limits = "target \"app\" {\n  context = \"ctx\"\n  resources = { memory = \"32m\" }\n}\n";
    env.write("docker-bake.hcl", limits);
    env.cbs(&["bake", "app"]).ok();
    let said = shell(
        &env,
        &["docker-bake.hcl#app"],
        "tail -c 200000000 /dev/zero > /dev/null; echo $?\n",
    );
    assert_eq!(said.stdout, "137\n", "{}", said.stderr);
    env.nothing_left();
}

#[test]
fn wrong_secrets_and_agents_of_shells_are_said_as_those_of_builds() {
    let env = world();
    build(&env, "RUN true\n", &[]).ok();
    for (flag, value, needles) in [
        ("--secret", "id=s,src=nowhere", &["nowhere"][..]),
        ("--secret", "src=ctx/Dockerfile", &["needs an id"]),
        ("--secret", "id=s,type=magic", &["magic", "file and env"]),
        ("--secret", "id=s,uid=4", &["uid"]),
        ("--ssh", "default=nowhere", &["nowhere"]),
        ("--ssh", "default=ctx", &["is a directory"]),
        ("--ssh", "default=ctx/Dockerfile", &["ctx/Dockerfile"]),
        ("--ssh", "default", &["SSH_AUTH_SOCK"]),
    ] {
        for said in [
            shell(&env, &["ctx", flag, value], ""),
            build(&env, "RUN true\n", &[flag, value]),
        ] {
            let Said { code, stderr, .. } = &said;
            assert_eq!(*code, 2, "{value}: {stderr}");
            said.fails_with(needles).fails_with(&[&flag[2..]]);
        }
    }
}

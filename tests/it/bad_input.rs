//! Bad input: what the user sees names the file, the line and the thing.

use crate::env::TestEnv;

#[test]
fn files_that_are_wrong() {
    let env = TestEnv::new();
    env.cbs(&["build", "nowhere"]).fails_with(&["nowhere"]);
    env.write("empty/x", "");
    env.cbs(&["build", "empty"]).fails_with(&["Dockerfile"]);
    env.write("typo/Dockerfile", "FROM scratch\nCOPPY a b\n");
    env.cbs(&["build", "typo"])
        .fails_with(&["Dockerfile:2", "COPPY a b", "COPY"]);
    env.write("bake/docker-bake.hcl", "target \"a\" {\n  dockerfile = \n}\n");
    env.cbs(&["bake", "-f", "bake/docker-bake.hcl", "a"])
        .fails_with(&["docker-bake.hcl:2"]);
    env.write("bake/ok.hcl", "target \"app\" {}\ntarget \"web\" {}\n");
    env.cbs(&["realize", "bake/ok.hcl#ap"])
        .fails_with(&["ap", "app", "web"]);
    env.write("stage/Dockerfile", "FROM scratch AS one\nFROM scratch AS two\n");
    env.cbs(&["build", "--target", "on", "stage"])
        .fails_with(&["on", "one"]);
    env.cbs(&["build", "--output", "type=floppy,dest=x", "stage"])
        .fails_with(&["floppy", "oci"]);
    env.cbs(&["export", "never-built", "-o", "x"])
        .fails_with(&["never-built"]);
    std::fs::write(env.path("bad.pb"), b"\xff\xff\xff").unwrap();
    env.cbs(&["realize", "bad.pb"]).fails_with(&["bad.pb"]);
}

#[test]
fn registries_that_do_not_answer_or_have_nothing() {
    let env = TestEnv::with_registry();
    env.write("none/Dockerfile", "FROM REGISTRY/cbs-test/nothing:1\n");
    env.cbs(&["build", "none"])
        .fails_with(&["cbs-test/nothing:1", "Dockerfile:1"]);
    env.write("down/Dockerfile", "FROM 127.0.0.1:1/some/image:1\n");
    env.cbs(&["build", "down"]).fails_with(&["127.0.0.1:1"]);
}

#[test]
fn a_step_that_fails_as_root() {
    let env = TestEnv::with_registry();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN echo first\nRUN echo last words; exit 7\n",
    );
    env.cbs(&["build", "ctx"])
        .fails_with(&["Dockerfile:3", "exit 7", "exit code: 7", "last words"]);
    env.nothing_left();
}

#[test]
fn a_full_disk_as_root() {
    let env = TestEnv::with_registry();
    let store = env.at("store");
    std::fs::create_dir(&store).unwrap();
    env.tool("mount", &["-t", "tmpfs", "-o", "size=12m", "tmpfs", &store])
        .ok();
    env.write(
        "ctx/Dockerfile",
        "FROM REGISTRY/cbs-test/busybox:1\nRUN head -c 30000000 /dev/urandom > /big || true\nRUN cp /big /big2\n",
    );
    let said = env.cbs(&["build", "ctx"]);
    let verify = env.cbs(&["store", "verify"]);
    env.tool("umount", &["-l", &store]).ok();
    said.fails_with(&["No space left"]);
    verify.ok();
}

#[test]
fn definitions_made_to_break_it_are_refused_with_their_place() {
    const DEEP: usize = 100_000;
    let env = TestEnv::new();
    let nested = |open: &str, middle: &str, close: &str| format!("{}{middle}{}", open.repeat(DEEP), close.repeat(DEEP));
    let cases = [
        ("parentheses.hcl", format!("x = {}", nested("(", "1", ")"))),
        ("lists.hcl", format!("x = {}", nested("[", "", "]"))),
        ("objects.hcl", format!("x = {}", nested("{a=", "1", "}"))),
        ("templates.hcl", format!("x = {}", nested("\"${", "1", "}\""))),
        (
            "directives.hcl",
            format!("x = \"{}\"", nested("%{if true}", "1", "%{endif}")),
        ),
        ("calls.hcl", format!("x = {}", nested("upper(", "\"\"", ")"))),
        ("not.hcl", format!("x = {}true", "!".repeat(DEEP))),
        ("sum.hcl", format!("x = 1{}", "+1".repeat(DEEP))),
        ("conditions.hcl", format!("x = {}1", "true ? 1 : ".repeat(DEEP))),
        ("steps.hcl", format!("y = {{}}\nx = y{}", ".a".repeat(DEEP))),
        ("loops.hcl", format!("x = {}", nested("[for a in [1]: ", "1", "]"))),
        ("blocks.hcl", format!("target \"a\" {}", nested("{ b ", "", "}"))),
        ("lists.json", format!("{{\"x\": {}}}", nested("[", "", "]"))),
        ("objects.json", format!("{{\"x\": {}}}", nested("{\"a\":", "1", "}"))),
        ("range.hcl", "x = range(1e9)".to_owned()),
        ("loop.hcl", "x = [for i in range(1e9): i]".to_owned()),
        ("width.hcl", "x = format(\"%1000000000d\", 1)".to_owned()),
        ("product.hcl", "a = range(1000)\nx = setproduct(a, a, a, a)".to_owned()),
        (
            "chain.hcl",
            (0..20_000)
                .map(|at| format!("v{at} = v{}\n", at + 1))
                .collect::<String>()
                + "v20000 = 1",
        ),
    ];
    for (name, text) in &cases {
        env.write(name, text);
        let start = std::time::Instant::now();
        let said = env.cbs(&["bake", "-f", name, "--print"]);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{name}: {}", said.stderr);
        assert!(start.elapsed().as_secs() < 30, "{name} took {:?}", start.elapsed());
        said.fails_with(&[&format!("error: {name}:")]);
    }
    for (name, text) in [
        ("lists.yml", format!("services: {}", nested("[", "", "]"))),
        (
            "laughs.yml",
            ('b'..='m').fold("a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, name| {
                let before = char::from(name as u8 - 1);
                format!("{text}{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(","))
            }) + "services: {s: {build: {context: ., args: *m}}}\n",
        ),
    ] {
        env.write(name, &text);
        let said = env.cbs(&["bake", "-f", name, "--print"]);
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{name}");
        said.fails_with(&[name, "line"]);
    }
}

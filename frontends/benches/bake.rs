//! How long a bake takes before anything is built.

use std::fmt::Write as _;
use std::hint::black_box;

use cbs_frontends::bake::{BakeOptions, MemoryHost, NoFetcher, load};
use criterion::{Criterion, criterion_group, criterion_main};

fn options() -> BakeOptions {
    BakeOptions {
        working_directory: String::from("/src"),
        local_platform: String::from("linux/amd64"),
        ..BakeOptions::default()
    }
}

fn bench_load(criterion: &mut Criterion, name: &str, definition: &str) {
    let host = MemoryHost::default().with("/src/docker-bake.hcl", definition);
    let options = options();
    load(&options, &host, &NoFetcher).expect("the definition is valid");
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| black_box(load(&options, &host, &NoFetcher)).expect("the definition is valid"));
    });
}

fn benches(criterion: &mut Criterion) {
    bench_load(criterion, "bake/one_target", "target \"default\" {}\n");

    let mut targets = String::from(
        "variable \"TAG\" { default = \"v1\" }\ntarget \"base\" {\n  platforms = [\"linux/amd64\"]\n  labels = { a = \"b\" }\n}\n",
    );
    let mut names = Vec::new();
    for at in 0..1000 {
        let _ok = writeln!(
            targets,
            "target \"t{at}\" {{\n  inherits = [\"base\"]\n  tags = [\"acme/t{at}:${{TAG}}\"]\n  args = {{ N = \"{at}\" }}\n}}"
        );
        names.push(format!("\"t{at}\""));
    }
    let _ok = writeln!(targets, "group \"default\" {{ targets = [{}] }}", names.join(", "));
    bench_load(criterion, "bake/1000_targets", &targets);

    let elements: Vec<String> = (0..10_000).map(|at| format!("\"e{at}\"")).collect();
    let list = format!(
        "l = [{}]\nx = [for i, e in l : \"${{upper(e)}}-${{i}}\" if e != \"x\"]\ntarget \"default\" {{\n  args = {{ n = length(x) }}\n}}\n",
        elements.join(", ")
    );
    bench_load(criterion, "bake/for_10000_elements", &list);
}

criterion_group!(all, benches);
criterion_main!(all);

//! What the targets for bake files share: evaluating a file, listing it, resolving its targets.

use cbs_frontends::bake::{BakeOptions, Listing, MemoryHost, NoFetcher, list, load};

/// Whatever the bytes are, there is an answer or an error, in bounded time and memory.
pub fn check(name: &str, data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // It is slow on purpose, and takes how slow from its argument.
    if text.contains("bcrypt") {
        return;
    }
    let host = MemoryHost::default().with(&format!("/src/{name}"), text);
    let options = BakeOptions {
        files: vec![name.to_owned()],
        targets: vec!["*".to_owned()],
        environment: [("VERSION", "1"), ("TAGS", "a,b"), ("X_JSON", "[1]")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        working_directory: "/src".to_owned(),
        home_directory: "/home".to_owned(),
        local_platform: "linux/amd64".to_owned(),
        ..BakeOptions::default()
    };
    if let Ok(bake) = load(&options, &host, &NoFetcher) {
        // What is printed is a bake file, too.
        let printed = bake.print_json();
        let host = MemoryHost::default().with("/src/again.json", &printed);
        let options = BakeOptions {
            files: vec!["again.json".to_owned()],
            ..options.clone()
        };
        let _ = load(&options, &host, &NoFetcher);
    }
    for what in ["targets", "variables,format=json"] {
        let listing = Listing::parse(what).expect("a known list");
        let _ = list(&options, listing, &host, &NoFetcher);
    }
}

//! ARCHITECTURE.md names paths; each must be there.

use crate::env::top;

#[test]
fn every_path_in_architecture_md_exists() {
    let text = std::fs::read_to_string(top().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut checked = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        if is_path && !word.starts_with('/') {
            assert!(
                top().join(word).exists(),
                "ARCHITECTURE.md names `{word}`, which is not there"
            );
            checked += 1;
        }
    }
    assert!(
        checked > 10,
        "only {checked} paths found; is the text still of that form?"
    );
}

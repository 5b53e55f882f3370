//! No statement that runs again and again reads a whole table.

use rusqlite::Connection;

use super::super::schema::SCHEMA;

/// The statements that a file prepares once and runs often.
fn statements(source: &str) -> Vec<String> {
    let literals = source.split("prepare_cached(").skip(1).filter_map(|rest| {
        let text = rest.trim_start().strip_prefix('"')?;
        Some(text.split('"').next()?.replace("\\\n", " "))
    });
    literals.collect()
}

#[test]
fn hot_statements_use_an_index() {
    let connection = Connection::open_in_memory().expect("open");
    connection.execute_batch(SCHEMA).expect("make tables");
    let sources = [
        ("blobs.rs", include_str!("../blobs.rs")),
        ("directories.rs", include_str!("../directories.rs")),
        ("layers.rs", include_str!("../layers.rs")),
        ("pending.rs", include_str!("../pending.rs")),
        ("realisations.rs", include_str!("../realisations.rs")),
        ("records.rs", include_str!("../records.rs")),
    ];
    let mut seen = 0;
    for (file, source) in sources {
        for statement in statements(source) {
            let mut plan = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {statement}"))
                .unwrap_or_else(|err| panic!("{file}: {statement}: {err}"));
            let count = plan.parameter_count();
            let nothing = rusqlite::params_from_iter((0..count).map(|_| rusqlite::types::Null));
            let steps: Vec<String> = plan
                .query_map(nothing, |row| row.get("detail"))
                .and_then(Iterator::collect)
                .unwrap_or_else(|err| panic!("{file}: {statement}: {err}"));
            for step in steps {
                let scans = step.starts_with("SCAN") && !step.contains("INDEX");
                assert!(!scans, "{file}: {statement}: {step}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} statements found");
}

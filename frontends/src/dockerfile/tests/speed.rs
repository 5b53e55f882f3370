//! Lowering is fast enough not to be noticed, and its cost grows with the file.

use std::time::Instant;

use super::*;

fn big(instructions: usize) -> String {
    let mut text = String::from("FROM alpine\nARG A=1\n");
    for number in 0..instructions / 4 {
        let _ok = write!(
            text,
            "COPY --chown=1:1 src{number}/file.txt /dst{number}/\nLABEL key{number}=\"value $A\"\nRUN echo {number} && \\\n  true $A\nWORKDIR /w{number}\n"
        );
    }
    text
}

#[test]
fn cost_grows_with_the_file() {
    let time = |count: usize| {
        let text = big(count);
        let measure = || {
            let start = Instant::now();
            let steps = lowered(&text, &[]).platforms[0].definition.def.len();
            (start.elapsed(), steps)
        };
        (0..3).map(|_| measure()).min().expect("measured")
    };
    let (small, _) = time(1_000);
    let (large, steps) = time(8_000);
    println!("1,000 instructions: {small:?}; 8,000: {large:?}");
    assert!(steps > 6_000);
    // Eight times the file may not cost much more than eight times the time; labels make the config grow too.
    assert!(large < small * 40, "1,000 instructions: {small:?}; 8,000: {large:?}");
}

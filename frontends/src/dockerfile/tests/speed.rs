//! Lowering is fast enough not to be noticed, and its cost grows with the file.

use std::time::Duration;

use super::*;

fn big(instructions: usize) -> String {
    let mut text = String::from("FROM alpine\nARG A=1\n");
    for number in 0..instructions / 4 {
        let _ok = write!(
            text,
            "COPY --chown=1:1 src{number}/file.txt /dst{number}/\nLABEL key{number}=\"value $A\"\n\
             RUN echo {number} && \\\n  true $A\nWORKDIR /w{number}\n"
        );
    }
    text
}

/// The time this thread has spent on a processor: other work on the machine does not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[test]
fn cost_grows_with_the_file() {
    let time = |count: usize| {
        let text = big(count);
        let measure = || {
            let start = cpu_time();
            let steps = lowered(&text, &[]).platforms[0].definition.def.len();
            assert!(steps > count / 2);
            cpu_time() - start
        };
        (0..3).map(|_| measure()).min().expect("measured")
    };
    let (small, large) = (time(1_000), time(8_000));
    println!("1,000 instructions: {small:?}; 8,000: {large:?}");
    assert!(large < small * 30, "1,000 instructions: {small:?}; 8,000: {large:?}");
}

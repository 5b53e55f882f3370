//! How long a Dockerfile takes before anything is built: ≤ 10 ms for 1,000 instructions, ≤ 20 ms for 200 stages.

use std::fmt::Write as _;
use std::hint::black_box;

use cbs_frontends::dockerfile::{
    BuildOptions, DockerfileInput, ImageRequest, MetaResolver, ResolveError, ResolvedImage, check, lower,
};
use cbs_solver::{BoxFuture, pb};
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;

/// A world in which every image has the same config.
struct OneImage;

impl MetaResolver for OneImage {
    fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
        let config = br#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},
            "rootfs":{"type":"layers","diff_ids":["sha256:00"]},"history":[{"created_by":"base"}]}"#;
        let image = ResolvedImage {
            reference: request.reference,
            digest: None,
            config: config.to_vec(),
        };
        Box::pin(async { Ok(image) })
    }

    fn ignore_file<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ResolveError>> {
        Box::pin(async { Ok(None) })
    }

    fn source_time(&self, _: pb::SourceOp) -> BoxFuture<'_, Result<Option<i64>, ResolveError>> {
        Box::pin(async { Ok(None) })
    }
}

fn bench_file(criterion: &mut Criterion, name: &str, text: &str) {
    let input = DockerfileInput {
        name: "Dockerfile",
        data: text.as_bytes(),
        ignore_file: None,
    };
    let options = BuildOptions::new("linux/amd64".parse().expect("a platform"));
    let run = || {
        lower(&input, &options, &OneImage)
            .now_or_never()
            .expect("nothing to wait for")
    };
    run().expect("the file is valid");
    criterion.bench_function(&format!("dockerfile/lower/{name}"), |bencher| {
        bencher.iter(|| black_box(run()))
    });
    criterion.bench_function(&format!("dockerfile/check/{name}"), |bencher| {
        bencher.iter(|| black_box(check(&input, &options, &OneImage).now_or_never()));
    });
}

fn benches(criterion: &mut Criterion) {
    let mut text = String::from("FROM alpine\nARG A=1\n");
    for number in 0..250 {
        let _ok = write!(
            text,
            "COPY --chown=1:1 src{number}/file.txt /dst{number}/\nLABEL key{number}=\"value $A\"\n\
             RUN echo {number} && \\\n  true $A\nWORKDIR /w{number}\n"
        );
    }
    bench_file(criterion, "1000_instructions", &text);

    let mut text = String::from("FROM alpine AS s0\nRUN true\n");
    for number in 1..200 {
        let _ok = write!(
            text,
            "FROM s{} AS s{number}\nARG V={number}\nENV E{number}=$V\nCOPY --from=s0 /etc /e{number}\nRUN make {number}\n",
            number / 2
        );
    }
    text.push_str("FROM alpine\n");
    for number in 0..200 {
        let _ok = writeln!(text, "COPY --from=s{number} /out /out{number}");
    }
    bench_file(criterion, "200_stages", &text);
}

criterion_group!(all, benches);
criterion_main!(all);

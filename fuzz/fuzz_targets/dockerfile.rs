//! Bytes as a Dockerfile: parsing, lint, outline and lowering must not panic, and must not depend on anything but the
//! bytes.
#![no_main]

use cbs_frontends::dockerfile::{
    BuildOptions, DockerfileInput, ImageRequest, MetaResolver, ResolveError, ResolvedImage, check, detect_syntax, lower,
    outline, targets,
};
use cbs_solver::{BoxFuture, pb};
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;

/// Every image is the same one, with a trigger.
struct OneImage;

impl MetaResolver for OneImage {
    fn image_config(&self, request: ImageRequest) -> BoxFuture<'_, Result<ResolvedImage, ResolveError>> {
        let config = br#"{"architecture":"amd64","os":"linux",
            "config":{"Env":["PATH=/bin"],"OnBuild":["COPY --from=tools /t /t","ENV B=1"]},
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
        Box::pin(async { Ok(Some(1)) })
    }
}

fuzz_target!(|data: &[u8]| {
    // What stands behind the last NUL is the ignore file.
    let (data, ignore_file) = match data.iter().rposition(|&byte| byte == 0) {
        Some(at) => (&data[..at], Some(&data[at + 1..])),
        None => (data, None),
    };
    let input = DockerfileInput {
        name: "Dockerfile",
        data,
        ignore_file,
    };
    let mut options = BuildOptions::new("linux/amd64".parse().expect("a platform"));
    options.build_args = [("A".to_owned(), "b c".to_owned())].into();
    let _syntax = detect_syntax(data);
    let _targets = targets(&input, &options);
    let _outline = outline(&input, &options, &OneImage).now_or_never().expect("nothing to wait for");
    let found = check(&input, &options, &OneImage).now_or_never().expect("nothing to wait for");
    drop(found.map(|found| found.status()));
    let lowered = || lower(&input, &options, &OneImage).now_or_never().expect("nothing to wait for");
    match (lowered(), lowered()) {
        (Ok(one), Ok(other)) => {
            let definitions = |lowered: &cbs_frontends::dockerfile::Lowered| {
                lowered.platforms.iter().map(|result| result.definition.clone()).collect::<Vec<_>>()
            };
            assert_eq!(definitions(&one), definitions(&other));
        }
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        _ => panic!("the same bytes lower, and do not"),
    }
});

//! Image configs and history.

use super::*;

fn config(text: &str, attrs: &[(&str, &str)]) -> cbs_image::config::ContainerConfig {
    lowered(text, attrs).platforms.remove(0).config.config
}

#[test]
fn arguments_and_environment_share_names() {
    let text = "ARG G=g\nFROM alpine\nARG G\nARG A=1 B\nENV A=2 C=$A\nARG A=3\nENV D=$A E=$B F=${G}\nRUN x\n";
    let attrs = [("build-arg:B", "")];
    assert_eq!(
        config(text, &attrs).env,
        ["PATH=/bin", "A=2", "C=1", "D=3", "E=", "F=g"]
    );
    let history = history(&lowered(text, &attrs));
    assert_eq!(history[..3], ["ARG G=g", "ARG A=1 B=", "ENV A=2 C=1"]);
    assert_eq!(history[5], "* RUN |3 G=g A=3 B= /bin/sh -c x # buildkit");
}

#[test]
fn platform_arguments() {
    let text = "FROM alpine\nARG TARGETPLATFORM TARGETVARIANT BUILDARCH TARGETSTAGE\nENV X=$TARGETPLATFORM,$TARGETVARIANT,$BUILDARCH,$TARGETSTAGE\n";
    let value = |attrs: &[(&str, &str)]| config(text, attrs).env[1].clone();
    assert_eq!(value(&[]), "X=linux/amd64,,amd64,default");
    assert_eq!(value(&[("platform", "linux/arm/7")]), "X=linux/arm/v7,v7,amd64,default");
    assert_eq!(value(&[("build-arg:TARGETPLATFORM", "mine")]), "X=mine,,amd64,default");
}

#[test]
fn history_texts() {
    let text = "FROM scratch\nMAINTAINER me\nLABEL a=\"x y\" b=z\nEXPOSE 8080 53/udp 80-81\nVOLUME /a [\"/b\"]\nVOLUME [\"/c d\"]\n\
                USER 1:2\nWORKDIR a\nWORKDIR /\nSTOPSIGNAL 9\nSHELL [\"a\", \"b\"]\nCMD c \"d\"\nENTRYPOINT [\"e\", \"f\\tg\"]\n\
                HEALTHCHECK --interval=3s --timeout=1m --retries=2 CMD x  y\nONBUILD RUN z \nADD --chown=1 --chmod=7 a b/ c\n\
                COPY --parents --link a /./b d\nARG Q\n";
    insta::assert_snapshot!(history(&lowered(text, &[])).join("\n"), @r#"
    MAINTAINER me
    LABEL a=x y b=z
    EXPOSE [53/udp 80/tcp 81/tcp 8080/tcp]
    VOLUME [/a [/b]]
    VOLUME [/c d]
    USER 1:2
    * WORKDIR /a
    WORKDIR /
    STOPSIGNAL 9
    SHELL [a b]
    CMD ["a" "b" "c \"d\""]
    ENTRYPOINT ["e" "f\tg"]
    HEALTHCHECK {Test:[CMD-SHELL x  y] Interval:3s Timeout:1m0s StartPeriod:0s StartInterval:0s Retries:2}
    * ADD --chown=1 --chmod=7 a b/ c # buildkit
    * COPY --parents a /./b d # buildkit
    ARG Q
    "#);
    let config = config(text, &[]);
    assert_eq!(
        (config.on_build, config.working_dir),
        (vec!["RUN z ".to_owned()], "/".to_owned())
    );
}

#[test]
fn entrypoint_and_cmd() {
    let text =
        |rest: &str| format!("FROM alpine AS a\nCMD [\"base\"]\nENTRYPOINT [\"e\"]\nCMD [\"base\"]\nFROM a\n{rest}");
    assert_eq!(config(&text("ENTRYPOINT [\"n\"]\n"), &[]).cmd, Vec::<String>::new());
    assert_eq!(config(&text("CMD [\"c\"]\nENTRYPOINT [\"n\"]\n"), &[]).cmd, ["c"]);
    assert_eq!(config(&text("CMD []\n"), &[]).cmd, Vec::<String>::new());
    assert_eq!(config(&text("CMD\n"), &[]).cmd, ["/bin/sh", "-c", ""]);
}

#[test]
fn labels_by_option_win() {
    let labels = config("FROM scratch\nLABEL a=1 b=2\n", &[("label:a", "9")]).labels;
    assert_eq!(
        labels.into_iter().collect::<Vec<_>>(),
        [("a".into(), "9".into()), ("b".into(), "2".into())]
    );
}

#[test]
fn platforms_in_the_config() {
    let config = |attrs: &[(&str, &str)]| lowered("FROM scratch\n", attrs).platforms.remove(0).config;
    assert_eq!(config(&[("platform", "linux/arm64/v8")]).variant, "");
    assert_eq!(config(&[("platform", "linux/arm/v6")]).variant, "v6");
    assert_eq!(
        config(&[]).config.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
    let windows = config(&[("platform", "windows/amd64")]);
    assert_eq!((windows.os.as_str(), windows.config.env.len()), ("windows", 0));
}

#[test]
fn an_index_of_one_can_be_asked_for() {
    assert!(lowered("FROM scratch\n", &[("build-arg:BUILDKIT_MULTI_PLATFORM", "1")]).index);
    assert!(!lowered("FROM scratch\n", &[("platform", "linux/arm64")]).index);
}

#[test]
fn bases() {
    let base = lowered("FROM alpine AS a\nRUN x\nFROM a\nENV A=1\n", &[])
        .platforms
        .remove(0)
        .base
        .expect("a base");
    assert!(
        base.reference
            .expect("named")
            .to_string()
            .starts_with("docker.io/library/alpine:latest@sha256:")
    );
    assert_eq!((base.config.rootfs.diff_ids.len(), base.config.history.len()), (1, 1));
    assert_eq!(lowered("FROM scratch\nCOPY a /\n", &[]).platforms[0].base, None);
}

#[test]
fn scratch_has_no_vertices() {
    let result = lowered("FROM scratch\nLABEL a=1\n", &[]).platforms.remove(0);
    assert_eq!(result.definition, pb::Definition::default());
}

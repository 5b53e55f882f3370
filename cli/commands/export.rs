//! `cbs export`: what was realised, written without building.

use std::process::ExitCode;

use cbs_image::source::Network;

use crate::args::Global;
use crate::build_args::ExportArgs;
use crate::export::{Realised, export};
use crate::failure::Usage;
use crate::output::{Output, csv_fields};
use crate::record::find;
use crate::session::Session;

/// `cbs export`.
pub(crate) fn run(global: &Global, args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let wrong = |err: anyhow::Error| Usage(format!("--output: {err:#}"));
    let output = output(&args.kind, &args.output).map_err(wrong)?;
    // Whether it needs a name turns out with what is kept.
    output.check(1).map_err(wrong)?;
    // The network serves only to push, and for layers whose bytes were collected.
    let session = Session::start(global, None, Network::Online)?;
    let (root, record) = find(&session.store, &args.name)?;
    let realised = Realised {
        record: &record,
        snapshots: &root.snapshots,
        label: "",
    };
    export(&session, realised, &output, false)?;
    Ok(ExitCode::SUCCESS)
}

/// A destination by itself, or a whole output.
fn output(kind: &str, text: &str) -> anyhow::Result<Output> {
    let fields = csv_fields(text)?;
    let is_whole = fields.iter().all(|field| {
        field.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        })
    });
    let value = match (is_whole, kind) {
        (true, _) if fields.iter().any(|field| field.starts_with("type=")) => text.to_owned(),
        (true, _) => format!("type={kind},{text}"),
        (false, "registry") => format!("type=registry,\"name={text}\""),
        (false, _) => format!("type={kind},\"dest={}\"", text.replace('"', "\"\"")),
    };
    Ok(Output::parse(&value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Destination, OutputKind};

    #[test]
    fn destinations_and_whole_outputs() {
        let plain = output("oci", "a,b.tar").expect("parses");
        assert_eq!(plain.dest, Some(Destination::Path("a,b.tar".into())));
        let whole = output("oci", "dest=a.tar,compression=zstd").expect("parses");
        assert_eq!(whole.attrs["compression"], "zstd");
        let pushed = output("registry", "example.org/a:1").expect("parses");
        assert_eq!(
            (pushed.kind, pushed.attrs["push"].as_str()),
            (OutputKind::Image, "true")
        );
    }
}

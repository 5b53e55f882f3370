//! What can be said about an output before anything is built: a build of an hour must not end at a misspelt attribute.

use anyhow::{Context as _, bail};
use cbs_image::codec::Compression;
use cbs_image::reference::Reference;

use crate::export::output_annotations;
use crate::output::{Output, OutputKind};

/// Attributes of outputs that change nothing here: what they are about does not exist without a daemon, or is so anyway.
const NO_EFFECT: [&str; 9] = [
    "unpack",
    "store",
    "name-canonical",
    "dangling-name-prefix",
    "danging-name-empty-only",
    "oci-artifact",
    "attestation-inline",
    "attestation-prefix",
    "prefer-nondist-layers",
];

/// Attributes that are read.
const KNOWN: [&str; 12] = [
    "name",
    "push",
    "push-by-digest",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "source-date-epoch",
    "tar",
    "platform-split",
    "mode",
];

/// Those that are true or false.
const FLAGS: [&str; 7] = [
    "push",
    "push-by-digest",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "tar",
    "platform-split",
];

impl Output {
    /// Refuses attributes that nobody reads, since silence would look like success, and values that make no sense.
    /// `names` are those that the image has anyway.
    pub(crate) fn check(&self, names: usize) -> anyhow::Result<()> {
        for name in self.attrs.keys() {
            let is_known =
                NO_EFFECT.contains(&name.as_str()) || KNOWN.contains(&name.as_str()) || name.starts_with("annotation");
            if !is_known {
                bail!("output attribute `{name}` is not known; there are {}", KNOWN.join(", "));
            }
        }
        for name in FLAGS {
            self.flag(name, false)?;
        }
        let (compression, level) = (self.compression()?, self.compression_level()?);
        let most = match compression {
            Compression::Gzip => Some(9),
            Compression::Zstd => Some(22),
            Compression::None => None,
        };
        if let (Some(level), Some(most)) = (level, most)
            && !(0..=most).contains(&level)
        {
            bail!("output attribute compression-level={level}: {compression} has levels 0 to {most}");
        }
        self.epoch()?;
        if let Some(mode) = self.attrs.get("mode")
            && !matches!(mode.as_str(), "copy" | "delete")
        {
            bail!("output attribute mode={mode}: there are copy and delete");
        }
        output_annotations(self)?;
        let own = self.names()?.len();
        if self.kind == OutputKind::Image && self.flag("push", false)? && own + names == 0 {
            bail!("an image to push needs a name: --tag NAME, or name=NAME in the output");
        }
        Ok(())
    }

    /// How layers are compressed.
    pub(crate) fn compression(&self) -> anyhow::Result<Compression> {
        match self.attrs.get("compression") {
            Some(name) => name
                .parse()
                .with_context(|| format!("output attribute compression={name}")),
            None => Ok(Compression::Gzip),
        }
    }

    /// How hard.
    pub(crate) fn compression_level(&self) -> anyhow::Result<Option<i32>> {
        let Some(text) = self.attrs.get("compression-level") else {
            return Ok(None);
        };
        let level = text.parse();
        let level =
            level.map_err(|_| anyhow::anyhow!("output attribute compression-level={text}: it is a whole number"));
        level.map(Some)
    }

    /// The time of what is written, in seconds since 1970, if the output has its own.
    pub(crate) fn epoch(&self) -> anyhow::Result<Option<i64>> {
        let Some(text) = self.attrs.get("source-date-epoch").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let seconds = text.parse();
        let wrong = || format!("output attribute source-date-epoch={text}: it is a number of seconds since 1970");
        seconds.map(Some).map_err(|_| anyhow::anyhow!(wrong()))
    }

    /// The names that the output gives the image.
    pub(crate) fn names(&self) -> anyhow::Result<Vec<Reference>> {
        let names = self.attrs.get("name").map_or("", String::as_str).split(',');
        let names = names.map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| {
                let name: Reference = name.parse().with_context(|| format!("output attribute name={name}"))?;
                Ok(name.with_default_tag())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_told_with_what_there_is() {
        for (text, want) in [
            ("type=oci,dest=x,color=red", "`color` is not known; there are name,"),
            ("type=oci,dest=x,tar=perhaps", "tar=perhaps is not true or false"),
            ("type=image,push=7", "push=7 is not true or false"),
            ("type=oci,dest=x,compression=rar", "`uncompressed`, `gzip` or `zstd`"),
            ("type=oci,dest=x,compression-level=x", "it is a whole number"),
            ("type=oci,dest=x,compression-level=10", "gzip has levels 0 to 9"),
            (
                "type=oci,dest=x,compression=zstd,compression-level=23",
                "zstd has levels 0 to 22",
            ),
            ("type=oci,dest=x,source-date-epoch=now", "seconds since 1970"),
            ("type=local,dest=x,mode=move", "there are copy and delete"),
            ("type=image,name=UPPER", "must be lowercase"),
            ("type=image,annotation=x", "names no annotation"),
            ("type=image,annotation-what.a=x", "annotation type `what` is not known"),
            ("type=registry", "needs a name"),
        ] {
            let output = Output::parse(text).expect(text);
            let message = format!("{:#}", output.check(0).expect_err(text));
            assert!(message.contains(want), "{text}: {message}");
        }
        for text in [
            "type=oci,dest=x,compression=zstd,compression-level=22",
            "type=registry,name=a",
            "type=image,annotation-index.a=b,annotation[linux/amd64].c=d",
            "type=local,dest=x,mode=delete,platform-split=false",
        ] {
            Output::parse(text).expect(text).check(0).expect(text);
        }
        Output::parse("type=registry")
            .expect("parses")
            .check(1)
            .expect("it has a name");
    }
}

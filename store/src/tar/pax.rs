//! PAX records: what stands in an extended header about the member that follows.

use crate::Timestamp;

/// What PAX records and GNU long names say about the next member.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU's sparse records: map in records (0.0, 0.1) or before the data (1.0).
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) numbers: Vec<u64>,
    pub(super) has_map: bool,
    pub(super) is_version_1: bool,
}

impl Extended {
    /// Adds PAX records: `length key=value\n`, the length that of the whole record.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn add_records(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "an extended header is damaged";
        while !records.is_empty() {
            let space = records.iter().position(|&byte| byte == b' ').ok_or(BAD)?;
            let length: usize = parse(&records[..space]).ok_or(BAD)?;
            let record = records.get(space + 1..length).ok_or(BAD)?;
            let record = record.strip_suffix(b"\n").ok_or(BAD)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(BAD)?;
            self.add_record(&record[..equals], &record[equals + 1..]).ok_or(BAD)?;
            records = &records[length..];
        }
        Ok(())
    }

    /// `None` for a value that cannot be.
    fn add_record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if !name.is_empty() && !name.contains(&0) {
                // The last one counts, and sorting keeps the order of equal names.
                self.xattrs.retain(|(known, _)| known != name);
                self.xattrs.push((name.to_vec(), value.to_vec()));
            }
            return Some(());
        }
        // An empty value takes a record back.
        let set = !value.is_empty();
        let name = |value: &[u8]| (!value.contains(&0)).then(|| set.then(|| value.to_vec()));
        match key {
            b"path" => self.name = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" if set => self.size = Some(parse(value)?),
            b"uid" if set => self.uid = Some(parse(value)?),
            b"gid" if set => self.gid = Some(parse(value)?),
            b"mtime" if set => self.mtime = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse.name = name(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(parse(value)?),
            b"GNU.sparse.major" => self.sparse.is_version_1 = value == b"1",
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.has_map = true;
                self.sparse.numbers.push(parse(value)?);
            }
            b"GNU.sparse.map" => {
                self.sparse.has_map = true;
                self.sparse.numbers = match value {
                    b"" => Vec::new(),
                    list => list.split(|&byte| byte == b',').map(parse).collect::<Option<_>>()?,
                };
            }
            _ => {}
        }
        Some(())
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// A PAX time: seconds, and a fraction of which nanoseconds are kept.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    if nanos > 0 && whole.starts_with('-') {
        // Counted towards the past, kept towards the future.
        return Some(Timestamp {
            seconds: seconds.checked_sub(1)?,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Some(Timestamp { seconds, nanos })
}

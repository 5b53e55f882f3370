//! Emulators that the machine has registered for everybody.

use std::fs;
use std::path::Path;

/// Whether the table at `table`, which is a mounted `binfmt_misc`, has an enabled entry for programs that begin with
/// `header`, and one that works where its interpreter is not to be seen: `F` means that the kernel has opened it.
pub(super) fn runs(table: &Path, header: &[u8]) -> bool {
    let switched_on = fs::read_to_string(table.join("status")).is_ok_and(|text| text.trim() == "enabled");
    let Ok(entries) = fs::read_dir(table) else {
        return false;
    };
    switched_on
        && entries.flatten().any(|entry| {
            // `register` cannot be read, `status` is no entry.
            fs::read_to_string(entry.path()).is_ok_and(|text| is_for(&text, header))
        })
}

fn is_for(entry: &str, header: &[u8]) -> bool {
    let mut lines = entry.lines();
    if lines.next() != Some("enabled") {
        return false;
    }
    let (mut flags, mut offset, mut magic, mut mask) = ("", "0", Vec::new(), None);
    for line in lines {
        match line.split_once(' ') {
            Some(("flags:", text)) => flags = text,
            Some(("offset", text)) => offset = text,
            Some(("magic", text)) => match unhex(text) {
                Some(bytes) => magic = bytes,
                None => return false,
            },
            Some(("mask", text)) => mask = unhex(text),
            _ => {}
        }
    }
    let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
    let matches = magic
        .iter()
        .zip(&mask)
        .zip(header)
        .all(|((magic, mask), byte)| (magic ^ byte) & mask == 0);
    flags.contains('F') && offset == "0" && !magic.is_empty() && magic.len() <= header.len() && matches
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim().as_bytes();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn header(machine: u8) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01\x00".to_vec();
        header.extend([0; 8]);
        header.extend([2, 0, machine, 0]);
        header
    }

    #[test]
    fn entries_are_matched_as_the_kernel_does() {
        let cases = [
            (ENTRY.to_owned(), 0xb7, true),
            (ENTRY.to_owned(), 0x28, false),
            (ENTRY.replace("enabled", "disabled"), 0xb7, false),
            (ENTRY.replace("OCF", "OC"), 0xb7, false),
            (ENTRY.replace("offset 0", "offset 4"), 0xb7, false),
            (ENTRY.replace("magic 7f", "magic zz"), 0xb7, false),
            (ENTRY.replace("0200b700", "0200b700ffff"), 0xb7, false),
            (
                "enabled\ninterpreter /x\nflags: F\nextension .py\n".to_owned(),
                0xb7,
                false,
            ),
            (String::new(), 0xb7, false),
        ];
        for (entry, machine, want) in cases {
            assert_eq!(is_for(&entry, &header(machine)), want, "{entry:?} {machine:x}");
        }
    }

    #[test]
    fn a_table_must_be_switched_on() {
        let table = tempfile::tempdir().expect("tempdir");
        assert!(!runs(&table.path().join("none"), &header(0xb7)));
        fs::write(table.path().join("qemu-aarch64"), ENTRY).expect("write");
        assert!(!runs(table.path(), &header(0xb7)));
        fs::write(table.path().join("status"), "enabled\n").expect("write");
        assert!(runs(table.path(), &header(0xb7)));
        assert!(!runs(table.path(), &header(0xf3)));
    }
}

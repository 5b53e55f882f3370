//! The 512-byte header block: where its fields are, and how numbers stand in it.

use std::ops::Range;

pub(super) const BLOCK: usize = 512;

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const KIND: usize = 156;
pub(super) const LINK_NAME: Range<usize> = 157..257;
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const DEVICE_MAJOR: Range<usize> = 329..337;
pub(super) const DEVICE_MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// GNU's old sparse format: four entries, a flag that more blocks follow, and the size of the whole file.
pub(super) const SPARSE_ENTRIES: Range<usize> = 386..482;
pub(super) const SPARSE_MORE: usize = 482;
pub(super) const SPARSE_SIZE: Range<usize> = 483..495;
/// A block of more sparse entries: 21 of them and the flag.
pub(super) const MORE_ENTRIES: Range<usize> = 0..504;
pub(super) const MORE_FLAG: usize = 504;

pub(super) const USTAR_MAGIC: &[u8; 8] = b"ustar\x0000";
pub(super) const GNU_MAGIC: &[u8; 8] = b"ustar  \0";

/// Bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number: octal digits with blanks around them, or, when the first bit is set, big-endian two's complement.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if let Some(&first) = field.first()
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (index, &byte) in field.iter().enumerate() {
            let byte = match (index, negative) {
                // The mark is no part of the number.
                (0, false) => byte & 0x7f,
                _ => byte,
            };
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(blank).unwrap_or(digits.len())];
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// The sum over a header with blanks for the sum itself; some old archivers took bytes for signed.
fn checksums(block: &[u8; BLOCK]) -> (i64, i64) {
    let mut sums = (0, 0);
    for (index, &byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&index) { b' ' } else { byte };
        sums.0 += i64::from(byte);
        sums.1 += i64::from(byte as i8);
    }
    sums
}

/// Whether a header's checksum is right.
pub(super) fn is_sound(block: &[u8; BLOCK]) -> bool {
    let (unsigned, signed) = checksums(block);
    number(&block[CHECKSUM]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// Whether a number has an octal form in a field of this length.
pub(super) fn fits(value: i64, length: usize) -> bool {
    value >= 0 && (length > 21 || value < 1 << (3 * (length - 1)))
}

/// Writes octal digits, padded with zeros, and a NUL; zero when it does not fit.
pub(super) fn put_number(field: &mut [u8], value: i64) {
    let width = field.len() - 1;
    let value = if fits(value, field.len()) { value } else { 0 };
    field[..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
    field[width] = 0;
}

/// Writes text as far as it goes: what is no ASCII is left out, since the whole text stands in a PAX record then.
pub(super) fn put_text(field: &mut [u8], text: &[u8]) {
    let ascii = text.iter().filter(|byte| byte.is_ascii() && **byte != 0);
    let mut length = 0;
    for (place, byte) in field.iter_mut().zip(ascii.clone()) {
        *place = *byte;
        length += 1;
    }
    // Some readers take a file whose cut name ends in a slash for a directory.
    if ascii.count() > field.len() {
        while length > 0 && field[length - 1] == b'/' {
            length -= 1;
            field[length] = 0;
        }
    }
}

/// Writes the checksum; everything else must be there.
pub(super) fn seal(block: &mut [u8; BLOCK]) {
    let (sum, _) = checksums(block);
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"-1", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"777777777777777777777777", None),
            (b"", Some(0)),
        ];
        for (field, want) in cases {
            assert_eq!(number(field), *want, "{field:?}");
        }
        let mut field = [1; 8];
        put_number(&mut field, 0o755);
        assert_eq!(&field, b"0000755\0");
        assert!(fits(0o7777777, 8) && !fits(0o10000000, 8) && !fits(-1, 12));
    }
}

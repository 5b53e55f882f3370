//! `rsadecrypt`: PKCS #1 v1.5 decryption with a PKCS #1 private key in PEM.
//!
//! The key and the text are in the bake file or its variables, and nobody measures how long this takes from outside,
//! so no care is taken to run in constant time.

use num_bigint::BigUint;
use num_traits::Zero;

use super::encoding::decode_base64;
use super::{CallError, CallResult, Environment, text};
use crate::bake::pem::first_block;
use crate::bake::value::Value;

/// Keys with more bits than this are refused: they would take seconds.
const MAX_BITS: u64 = 16_384;

pub(super) fn rsadecrypt(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let ciphertext = decode_base64(text(&args[0]))?;
    let refuse = |message: &str| CallError::Argument(1, String::from(message));
    let key = first_block(text(&args[1])).map_err(|error| refuse(&error.to_string()))?;
    let (modulus, exponent) = parse_key(&key.content).ok_or_else(|| refuse("the key is no PKCS #1 private key"))?;
    if modulus.bits() > MAX_BITS || modulus.is_zero() {
        return Err(refuse("the key has a size that is not supported"));
    }
    let length = modulus.bits().div_ceil(8) as usize;
    let failed = || CallError::Argument(0, String::from("the text cannot be decrypted with this key"));
    let encrypted = BigUint::from_bytes_be(&ciphertext);
    if ciphertext.len() > length || encrypted >= modulus {
        return Err(failed());
    }
    let padded = encrypted.modpow(&exponent, &modulus).to_bytes_be();
    // 00 02, at least eight random bytes, 00, the message; the first zero is lost in the number.
    if padded.len() + 1 != length || padded.first() != Some(&2) {
        return Err(failed());
    }
    let end = padded
        .iter()
        .position(|byte| *byte == 0)
        .filter(|end| *end >= 9)
        .ok_or_else(failed)?;
    match std::str::from_utf8(&padded[end + 1..]) {
        Ok(message) => Ok(Value::string(message)),
        Err(_) => Err(CallError::from("the decrypted bytes are not UTF-8 text")),
    }
}

/// The modulus and the private exponent of `RSAPrivateKey`.
fn parse_key(der: &[u8]) -> Option<(BigUint, BigUint)> {
    let (sequence, _) = element(der, 0x30)?;
    let (_version, rest) = element(sequence, 0x02)?;
    let (modulus, rest) = element(rest, 0x02)?;
    let (_public, rest) = element(rest, 0x02)?;
    let (private, _) = element(rest, 0x02)?;
    Some((BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(private)))
}

/// One DER element with the given tag: its content, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let bytes = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
        (
            bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)),
            &rest[count..],
        )
    };
    Some((rest.get(..length)?, &rest[length..]))
}

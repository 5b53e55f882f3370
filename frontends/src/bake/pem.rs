//! Keys in PEM files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The first block of a PEM file.
pub(crate) struct Block {
    /// What it says to be, such as `RSA PRIVATE KEY`.
    pub(crate) label: String,
    pub(crate) content: Vec<u8>,
}

/// Why there is no key to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PemError {
    #[error("there is no PEM key in it")]
    NoKey,
    #[error("the PEM key is not complete")]
    Incomplete,
    #[error("keys with a password are not supported; remove the password first, or use an agent")]
    Encrypted,
    #[error("the PEM key is no valid base64")]
    Base64,
    #[error("it holds no private key that is known")]
    NoPrivateKey,
}

pub(crate) fn first_block(text: &str) -> Result<Block, PemError> {
    const BEGIN: &str = "-----BEGIN ";
    let start = text.find(BEGIN).ok_or(PemError::NoKey)?;
    let rest = &text[start + BEGIN.len()..];
    let (label, rest) = rest.split_once("-----").ok_or(PemError::Incomplete)?;
    let body = &rest[rest.find('\n').ok_or(PemError::Incomplete)?..];
    let body = &body[..body.find("-----END ").ok_or(PemError::Incomplete)?];
    if body.contains("ENCRYPTED") || label.contains("ENCRYPTED") {
        return Err(PemError::Encrypted);
    }
    let lines: String = body.lines().filter(|line| !line.contains(':')).map(str::trim).collect();
    let content = STANDARD.decode(lines).map_err(|_| PemError::Base64)?;
    Ok(Block {
        label: String::from(label),
        content,
    })
}

/// Makes sure that a file holds a private key that can be used without a password.
pub(crate) fn check_private_key(text: &str) -> Result<(), PemError> {
    /// Behind it, the name of the cipher with its length in front.
    const OPENSSH: &[u8] = b"openssh-key-v1\0";
    const DER_SEQUENCE: u8 = 0x30;
    let block = first_block(text)?;
    match block.label.as_str() {
        "OPENSSH PRIVATE KEY" => {
            let rest = block.content.strip_prefix(OPENSSH).ok_or(PemError::NoPrivateKey)?;
            let cipher = rest.get(4..8).ok_or(PemError::NoPrivateKey)?;
            if rest[..4] == [0, 0, 0, 4] && cipher == b"none" {
                Ok(())
            } else {
                Err(PemError::Encrypted)
            }
        }
        "RSA PRIVATE KEY" | "DSA PRIVATE KEY" | "EC PRIVATE KEY" | "PRIVATE KEY" => {
            if block.content.first() == Some(&DER_SEQUENCE) {
                Ok(())
            } else {
                Err(PemError::NoPrivateKey)
            }
        }
        _ => Err(PemError::NoPrivateKey),
    }
}

//! Hashes, as lower case hexadecimal text.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::{CallResult, Function, function, text};
use crate::bake::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    function!(
        "bcrypt",
        [("str", String)],
        ("cost", Number),
        super::bcrypt_hash::bcrypt
    ),
    function!("md5", [("str", String)], |_, args| hash::<Md5>(args)),
    function!(
        "rsadecrypt",
        [("ciphertext", String), ("privatekey", String)],
        super::rsa::rsadecrypt
    ),
    function!("sha1", [("str", String)], |_, args| hash::<Sha1>(args)),
    function!("sha256", [("str", String)], |_, args| hash::<Sha256>(args)),
    function!("sha512", [("str", String)], |_, args| hash::<Sha512>(args)),
];

fn hash<D: Digest>(args: &[Value]) -> CallResult {
    let digest = D::digest(text(&args[0]));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Value::string(&hex))
}

//! `bcrypt`: a salted password hash.

use bcrypt::{Version, hash_with_salt};

use super::{CallError, CallResult, Environment, integer, text};
use crate::bake::value::Value;

/// The cost when none is given, or one too low to be of use.
const DEFAULT_COST: i64 = 10;
/// More bytes than this do not enter the hash.
const MAX_PASSWORD: usize = 72;

pub(super) fn bcrypt(environment: &Environment<'_>, args: &[Value]) -> CallResult {
    if args.len() > 2 {
        return Err(CallError::from("at most two arguments are taken"));
    }
    let cost = if args.len() > 1 {
        integer(args, 1)?
    } else {
        DEFAULT_COST
    };
    let cost = if cost < 4 { DEFAULT_COST } else { cost };
    let cost = u32::try_from(cost).ok().filter(|cost| *cost <= 31);
    let Some(cost) = cost else {
        return Err(CallError::Argument(1, String::from("the cost must be at most 31")));
    };
    let password = text(&args[0]);
    if password.len() > MAX_PASSWORD {
        return Err(CallError::Argument(
            0,
            format!("the text must not be longer than {MAX_PASSWORD} bytes"),
        ));
    }
    let mut salt = [0; 16];
    (environment.random)(&mut salt);
    match hash_with_salt(password, cost, salt) {
        Ok(parts) => Ok(Value::string(&parts.format_for_version(Version::TwoA))),
        Err(error) => Err(CallError::Argument(0, error.to_string())),
    }
}

//! IP networks in CIDR notation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{CallError, CallResult, Environment, Function, function, integer, text};
use crate::bake::value::{Type, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function!("cidrhost", [("prefix", String), ("hostnum", Number)], cidrhost),
    function!("cidrnetmask", [("prefix", String)], |_, args| {
        let network = network(args)?;
        Ok(Value::string(&address_text(network.mask(network.length), network.bits)))
    }),
    function!(
        "cidrsubnet",
        [("prefix", String), ("newbits", Number), ("netnum", Number)],
        cidrsubnet
    ),
    function!("cidrsubnets", [("prefix", String)], ("newbits", Number), cidrsubnets),
];

/// Only so many bits can be added to a prefix at once.
const MAX_NEW_BITS: i64 = 32;

/// An address as a number, the length of the prefix, and the bits of the address family.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: u128,
    length: u32,
    bits: u32,
}

impl Network {
    fn mask(self, length: u32) -> u128 {
        let all = u128::MAX >> (128 - self.bits);
        if length == 0 {
            0
        } else {
            all & (u128::MAX << (self.bits - length))
        }
    }

    fn to_text(self) -> String {
        format!("{}/{}", address_text(self.address, self.bits), self.length)
    }
}

fn address_text(address: u128, bits: u32) -> String {
    match u32::try_from(address) {
        Ok(address) if bits == 32 => Ipv4Addr::from_bits(address).to_string(),
        _ => Ipv6Addr::from_bits(address).to_string(),
    }
}

fn network(args: &[Value]) -> Result<Network, CallError> {
    let source = text(&args[0]);
    let refuse = || CallError::Argument(0, format!("{source:?} is no network in CIDR notation, like 10.0.0.0/8"));
    let (address, length) = source.split_once('/').ok_or_else(refuse)?;
    let (address, bits) = match address.parse::<IpAddr>().map_err(|_| refuse())? {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse());
    }
    let length: u32 = length
        .parse()
        .ok()
        .filter(|length| *length <= bits)
        .ok_or_else(refuse)?;
    let network = Network { address, length, bits };
    Ok(Network {
        address: address & network.mask(length),
        ..network
    })
}

fn cidrhost(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let network = network(args)?;
    let number = integer(args, 1)?;
    let host_bits = network.bits - network.length;
    let most = if host_bits == 0 {
        0
    } else {
        u128::MAX >> (128 - host_bits)
    };
    let too_large = || CallError::Argument(1, format!("a prefix of {} has no host number {number}", network.length));
    // Negative numbers count from the end.
    let host = if number < 0 {
        most.checked_sub(u128::from(number.unsigned_abs()) - 1)
            .ok_or_else(too_large)?
    } else {
        u128::from(number.unsigned_abs())
    };
    if host > most {
        return Err(too_large());
    }
    Ok(Value::string(&address_text(network.address | host, network.bits)))
}

fn cidrsubnet(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let network = network(args)?;
    let (new_bits, number) = (integer(args, 1)?, integer(args, 2)?);
    if new_bits > MAX_NEW_BITS {
        return Err(CallError::Argument(
            1,
            format!("a prefix cannot be extended by more than {MAX_NEW_BITS} bits"),
        ));
    }
    let length = i64::from(network.length) + new_bits;
    if new_bits < 0 || length > i64::from(network.bits) {
        let message = format!("a prefix of {} cannot be extended by {new_bits} bits", network.length);
        return Err(CallError::Argument(1, message));
    }
    let Some(number) = u128::try_from(number).ok().filter(|number| *number < 1 << new_bits) else {
        return Err(CallError::Argument(
            2,
            format!("{new_bits} more bits do not reach subnet number {number}"),
        ));
    };
    let length = u32::try_from(length).unwrap_or(network.bits);
    let shift = network.bits - length;
    let address = if shift == 128 {
        network.address
    } else {
        network.address | (number << shift)
    };
    Ok(Value::string(
        &Network {
            address,
            length,
            ..network
        }
        .to_text(),
    ))
}

/// Consecutive subnets, each aligned to its own size.
fn cidrsubnets(_: &Environment<'_>, args: &[Value]) -> CallResult {
    let network = network(args)?;
    let end = network.address | !network.mask(network.length) & network.mask(network.bits);
    let mut next = Some(network.address);
    let mut subnets = Vec::with_capacity(args.len());
    for position in 1..args.len() {
        let new_bits = integer(args, position)?;
        if !(1..=MAX_NEW_BITS).contains(&new_bits) {
            let message = format!("a prefix can be extended by 1 to {MAX_NEW_BITS} bits");
            return Err(CallError::Argument(position, message));
        }
        let length = i64::from(network.length) + new_bits;
        let Some(length) = u32::try_from(length).ok().filter(|length| *length <= network.bits) else {
            let message = format!("a prefix of {length} bits is too long for this address family");
            return Err(CallError::Argument(position, message));
        };
        let size_mask = !network.mask(length) & network.mask(network.bits);
        // Up to the next address that a subnet of this size can start at.
        let start = next
            .and_then(|next| next.checked_add(size_mask))
            .map(|next| next & !size_mask);
        let start = start.filter(|start| *start <= end);
        let Some(address) = start else {
            return Err(CallError::Argument(
                position,
                format!("no address space is left for a prefix of {length} bits"),
            ));
        };
        subnets.push(Value::string(
            &Network {
                address,
                length,
                ..network
            }
            .to_text(),
        ));
        next = (address | size_mask).checked_add(1);
    }
    Ok(Value::list(Type::String, subnets))
}

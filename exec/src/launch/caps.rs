//! Which capabilities a container has.

use super::spec::Security;

/// Docker's default set, by the numbers of linux/capability.h.
const DOCKER_DEFAULT: [u32; 14] = [
    0,  // CAP_CHOWN
    1,  // CAP_DAC_OVERRIDE
    3,  // CAP_FOWNER
    4,  // CAP_FSETID
    5,  // CAP_KILL
    6,  // CAP_SETGID
    7,  // CAP_SETUID
    8,  // CAP_SETPCAP
    10, // CAP_NET_BIND_SERVICE
    13, // CAP_NET_RAW
    18, // CAP_SYS_CHROOT
    27, // CAP_MKNOD
    29, // CAP_AUDIT_WRITE
    31, // CAP_SETFCAP
];

/// Sets of capabilities as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CapabilitySets {
    /// What can ever be gained.
    pub(super) bounding: u64,
    /// What the process holds before it executes its program.
    pub(super) permitted: u64,
}

/// The sets for a container whose launcher may hand out `available`.
pub(super) fn sets(security: Security, available: u64) -> CapabilitySets {
    let wanted = match security {
        Security::Sandbox => DOCKER_DEFAULT.iter().fold(0, |set, capability| set | 1 << capability),
        Security::Insecure => u64::MAX,
    };
    // What the caller lacks cannot be given; a build in a restricted container then has less, as its parent does.
    CapabilitySets {
        bounding: wanted,
        permitted: wanted & available,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(sets(Security::Sandbox, u64::MAX).bounding, 0xa80_425fb);
        assert_eq!(sets(Security::Sandbox, 0b11).permitted, 0b11);
        assert_eq!(sets(Security::Insecure, 0x1ff_ffff_ffff).permitted, 0x1ff_ffff_ffff);
    }
}

//! Owners and modes as `--chown`, `--chmod` and USER write them.

use cbs_solver::pb;

use super::graph::NONE;

/// An owner as `user[:group]`, by name or number. `root` is 0 without looking; an empty part is 0 too.
pub(super) fn owner(text: &str) -> pb::ChownOpt {
    let part = |name: &str| {
        let user = match name.parse::<i32>() {
            Ok(id) => pb::user_opt::User::ById(id.cast_unsigned()),
            Err(_) if name == "root" || name.is_empty() => pb::user_opt::User::ById(0),
            Err(_) => pb::user_opt::User::ByName(pb::NamedUserOpt {
                name: name.to_owned(),
                input: NONE,
            }),
        };
        Some(pb::UserOpt { user: Some(user) })
    };
    match text.split_once(':') {
        Some((user, group)) => pb::ChownOpt {
            user: part(user),
            group: part(group),
        },
        None => pb::ChownOpt {
            user: part(text),
            group: None,
        },
    }
}

/// A mode as a number, or -1 and the symbolic text.
pub(super) fn chmod(text: &str) -> Result<(i32, String), String> {
    if text.is_empty() {
        return Ok((-1, String::new()));
    }
    let bad = || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if is_octal || text.starts_with(|c: char| c.is_ascii_digit()) {
        let mode = i32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| is_octal && *mode <= 0o7777);
        return mode.map(|mode| (mode, String::new())).ok_or_else(bad);
    }
    if is_symbolic_mode(text) {
        Ok((0, text.to_owned()))
    } else {
        Err(format!(
            "invalid chmod parameter: '{text}'. it should be octal, or symbolic such as u+x,go=r"
        ))
    }
}

/// `u+x,go=rX-w`: clauses of who, and one or more operators with permissions.
fn is_symbolic_mode(text: &str) -> bool {
    text.split(',').all(|clause| {
        let operations = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let is_permission = |c: char| "rwxXstugo".contains(c);
        operations.starts_with(['+', '-', '='])
            && operations
                .split(['+', '-', '='])
                .all(|permissions| permissions.chars().all(is_permission))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(chmod(""), Ok((-1, String::new())));
        assert_eq!(chmod("0755"), Ok((0o755, String::new())));
        assert_eq!(chmod("7777"), Ok((0o7777, String::new())));
        for symbolic in ["u+x", "go=", "a+rX,u-w", "=rw,+X", "u=rwx,go=u-w", "+t"] {
            assert_eq!(chmod(symbolic), Ok((0, symbolic.to_owned())), "{symbolic}");
        }
        for bad in ["10000", "9z9", "8", "u", "u+q", "u+x,", ",u+x", "rwx", "07x"] {
            assert!(chmod(bad).is_err_and(|message| message.contains(bad)), "{bad}");
        }
    }

    #[test]
    fn owners() {
        use pb::user_opt::User;
        let read = |text: &str| {
            let owner = owner(text);
            (
                owner.user.and_then(|user| user.user),
                owner.group.map(|group| group.user),
            )
        };
        let named = |name: &str| {
            Some(User::ByName(pb::NamedUserOpt {
                name: name.into(),
                input: -1,
            }))
        };
        assert_eq!(read("5"), (Some(User::ById(5)), None));
        assert_eq!(read("app:root"), (named("app"), Some(Some(User::ById(0)))));
        assert_eq!(read(":grp"), (Some(User::ById(0)), Some(named("grp"))));
    }
}

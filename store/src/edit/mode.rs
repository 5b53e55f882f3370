//! Permission changes as `--chmod` takes them: octal, or symbolic as in chmod(1).

use super::EditError;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
/// What a clause without a class (`+x`, `=rw`) is about; the sticky bit only when `t` says so.
const STANDARD: u32 = SET_UID | SET_GID | 0o777;

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits, whatever was there.
    Set(u32),
    /// Symbolic clauses, applied to the bits that are there.
    Symbolic(SymbolicMode),
}

impl ModeChange {
    /// Reads an octal number up to `7777` or a symbolic mode.
    ///
    /// # Errors
    /// [`EditError::BadMode`] for anything else.
    pub fn parse(text: &str) -> Result<Self, EditError> {
        let bad = || EditError::BadMode { text: text.to_owned() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Set(mode)),
                _ => Err(bad()),
            };
        }
        SymbolicMode::parse(text).map(Self::Symbolic)
    }

    /// The new bits of something that has `mode`.
    pub fn apply(&self, mode: u32, kind: ModeTarget) -> u32 {
        match self {
            Self::Set(mode) => *mode & 0o7777,
            Self::Symbolic(symbolic) => symbolic.apply(mode, kind),
        }
    }
}

/// What a mode is applied to: `X` differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeTarget {
    /// `X` always means `x`.
    Directory,
    /// `X` means `x` only when some `x` bit is set already.
    Other,
}

/// A parsed symbolic mode. Beyond chmod(1): `=` without a class leaves the sticky bit, `s` and `t` are ignored for
/// `o` alone, and a clause may chain operators (`u=g-w`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolicMode(Vec<Step>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Set(u32),
    Clear(u32),
    /// Set when it was executable before the first step, or is a directory.
    SetIfExecutable(u32),
    /// Copies the `rwx` of the class at shift `from` to the classes in `to`.
    Copy {
        from: u32,
        to: u32,
        operator: Operator,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Assign,
}

impl SymbolicMode {
    /// Reads clauses such as `u=rwX,go-w,+t`.
    ///
    /// # Errors
    /// [`EditError::BadMode`] when it is none.
    pub fn parse(text: &str) -> Result<Self, EditError> {
        let bad = || EditError::BadMode { text: text.to_owned() };
        let mut steps = Vec::new();
        for clause in text.split(',') {
            let mut rest = clause.bytes().peekable();
            let mut who = 0;
            while let Some(class) = rest.next_if(|byte| b"augo".contains(byte)) {
                who |= match class {
                    b'a' => STANDARD,
                    b'u' => SET_UID | 0o700,
                    b'g' => SET_GID | 0o070,
                    _ => 0o007,
                };
            }
            let mut chain = 0;
            while let Some(operator) = rest.next() {
                let operator = match operator {
                    b'+' => Operator::Add,
                    b'-' => Operator::Remove,
                    b'=' => Operator::Assign,
                    _ => return Err(bad()),
                };
                let mut letters = Vec::new();
                while let Some(letter) = rest.next_if(|byte| !b"+-=".contains(byte)) {
                    letters.push(letter);
                }
                permissions(&mut steps, who, operator, &letters).ok_or_else(bad)?;
                chain += 1;
            }
            if chain == 0 {
                return Err(bad());
            }
        }
        Ok(Self(steps))
    }

    fn apply(&self, old: u32, kind: ModeTarget) -> u32 {
        let mut mode = old;
        for step in &self.0 {
            match *step {
                Step::Set(bits) => mode |= bits,
                Step::Clear(bits) => mode &= !bits,
                Step::SetIfExecutable(bits) => {
                    if old & 0o111 != 0 || kind == ModeTarget::Directory {
                        mode |= bits;
                    }
                }
                Step::Copy { from, to, operator } => {
                    let bits = ((mode >> from & 7) * 0o111) & to;
                    match operator {
                        Operator::Add => mode |= bits,
                        Operator::Remove => mode &= !bits,
                        Operator::Assign => mode = mode & !to | bits,
                    }
                }
            }
        }
        mode & 0o7777
    }
}

/// Adds the steps of one operator and the letters behind it; `None` for an unknown letter.
fn permissions(steps: &mut Vec<Step>, who: u32, operator: Operator, letters: &[u8]) -> Option<()> {
    let (mut bits, mut executable, mut sticky) = (0, 0, 0);
    // `s` and `t` say nothing about others alone.
    let special = who == 0 || who & !0o007 != 0;
    let mut copies = Vec::new();
    for letter in letters {
        match letter {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b'X' if operator == Operator::Remove => bits |= 0o111,
            b'X' => executable = 0o111,
            b's' if special => bits |= SET_UID | SET_GID,
            b't' if special => sticky = STICKY,
            b's' | b't' => {}
            b'u' => copies.push(6),
            b'g' => copies.push(3),
            b'o' => copies.push(0),
            _ => return None,
        }
    }
    let mask = if who == 0 { STANDARD } else { who } | sticky;
    bits = (bits | sticky) & mask;
    // A copy with `=` replaces its classes by itself; before anything else is assigned they must not be cleared.
    if operator == Operator::Assign && (copies.is_empty() || bits != 0) {
        steps.push(Step::Clear(mask));
    }
    if bits != 0 {
        steps.push(match operator {
            Operator::Remove => Step::Clear(bits),
            Operator::Add | Operator::Assign => Step::Set(bits),
        });
    }
    if executable & mask != 0 {
        steps.push(Step::SetIfExecutable(executable & mask));
    }
    steps.extend(copies.into_iter().map(|from| Step::Copy {
        from,
        to: if who == 0 { 0o777 } else { who & 0o777 },
        operator,
    }));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes() {
        use ModeTarget::{Directory, Other};
        let cases = [
            ("=", 0o777, Other, 0),
            ("+", 0o421, Other, 0o421),
            ("+t", 0o421, Other, 0o1421),
            ("-t", 0o1421, Other, 0o421),
            ("u+X", 0, Other, 0),
            ("u+X", 0o001, Other, 0o101),
            ("u+X", 0, Directory, 0o100),
            ("u+s", 0, Other, 0o4000),
            ("g+s", 0, Other, 0o2000),
            ("o+s", 0, Other, 0),
            ("+s", 0, Other, 0o6000),
            ("-r", 0o777, Other, 0o333),
            ("u=rw", 0o777, Other, 0o677),
            ("u=", 0o777, Other, 0o077),
            ("=rw", 0o777, Other, 0o666),
            ("u=g", 0o742, Other, 0o442),
            ("u=g-w", 0o762, Other, 0o462),
            ("u+go", 0o021, Other, 0o321),
            ("-u", 0o111, Other, 0),
            ("a=r,ug=rw,u+x", 0o777, Other, 0o764),
            ("o+r,g+w,a+t,g-s,u+og", 0o2100, Other, 0o1724),
            ("go-w", 0o777, Other, 0o755),
            ("u=rwx,go=u-w", 0, Other, 0o755),
            ("go=u-w", 0o370, Other, 0o311),
            ("u=rwX,go=X", 0o755, Directory, 0o711),
            ("u=rwX,go=X", 0o644, Other, 0o600),
            ("u=rwX,go=X", 0o744, Other, 0o711),
            ("u=rwx,go=rx", 0o600, Other, 0o755),
            ("a+x,u-w", 0o644, Other, 0o555),
            ("o=u,g=o", 0o644, Other, 0o666),
        ];
        for (text, old, kind, want) in cases {
            let change = ModeChange::parse(text).expect(text);
            assert_eq!(change.apply(old, kind), want, "{text} on {old:o}");
        }
    }

    #[test]
    fn octal_modes_and_nonsense() {
        assert_eq!(ModeChange::parse("04755").expect("octal"), ModeChange::Set(0o4755));
        for bad in ["", ",", "q+r", "10000", "9", "z", "u", "go", "u+r,", "u+z", "+r x"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad:?}");
        }
    }
}

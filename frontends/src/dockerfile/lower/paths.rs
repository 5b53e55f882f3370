//! Paths inside images, by the rules of the image's operating system. What comes out uses `/` throughout.

use cbs_solver::patterns::clean_path;

/// Whether a trailing `/` or `/.` means something, as it does for destinations of copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trailing {
    Keep,
    Drop,
}

/// A path made absolute below `parent`. An absolute one stays as it is written.
///
/// # Errors
/// A reason, when a Windows path is on no or another drive, or a network path.
pub(super) fn normalize(parent: &str, path: &str, os: &str, trailing: Trailing) -> Result<String, String> {
    let written = to_slash(path, os);
    let parent = strip_drive(&to_slash(parent, os), os, trailing)?;
    let parent = if parent.starts_with('/') {
        parent
    } else {
        clean_path(&format!("/{parent}"))
    };
    let path = if written.is_empty() {
        parent.clone()
    } else {
        strip_drive(&written, os, trailing)?
    };
    let mut path = if path.starts_with('/') {
        path
    } else {
        clean_path(&format!("{parent}/{path}"))
    };
    if trailing == Trailing::Keep {
        keep_trailing(&written, &mut path);
    }
    Ok(path)
}

/// The destination of a copy below the working directory: cleaned, with a trailing `/` or `/.` kept.
pub(super) fn destination(dir: &str, path: &str, os: &str) -> Result<String, String> {
    let path = if matches!(path, "" | ".") { "./" } else { path };
    let absolute = strip_drive(path, os, Trailing::Keep)?.starts_with('/');
    let written = normalize(if absolute { "/" } else { dir }, path, os, Trailing::Keep)?;
    let mut cleaned = clean_path(&written);
    keep_trailing(&written, &mut cleaned);
    Ok(cleaned)
}

fn keep_trailing(written: &str, path: &mut String) {
    if written.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    } else if written.ends_with("/.") {
        if path != "/" {
            path.push('/');
        }
        path.push('.');
    }
}

/// A new working directory, in the separators of the operating system.
///
/// # Errors
/// As for [`normalize`].
pub(super) fn workdir(current: &str, path: &str, os: &str) -> Result<String, String> {
    let path = normalize(current, path, os, Trailing::Drop)?;
    Ok(if os == "windows" { path.replace('/', "\\") } else { path })
}

pub(super) fn to_slash(path: &str, os: &str) -> String {
    if os == "windows" {
        path.replace('\\', "/")
    } else {
        path.to_owned()
    }
}

/// Whether a path is absolute; on Windows with or without the drive.
pub(super) fn is_absolute(path: &str, os: &str) -> bool {
    strip_drive(path, os, Trailing::Drop).is_ok_and(|path| to_slash(&path, os).starts_with('/'))
}

/// Takes the `C:` off a Windows path, and cleans it.
fn strip_drive(path: &str, os: &str, trailing: Trailing) -> Result<String, String> {
    if os != "windows" {
        return Ok(path.to_owned());
    }
    let slashed = to_slash(path, os);
    if slashed.len() == 2 && slashed.ends_with(':') {
        return Err(format!("No relative path specified in {path:?}"));
    }
    if slashed.starts_with("//") {
        return Err("UNC paths are not supported".to_owned());
    }
    let rest = match slashed.split_once(':') {
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err("The specified path is not on the system drive (C:)".to_owned()),
        None => &slashed,
    };
    let mut cleaned = clean_path(rest);
    if trailing == Trailing::Keep && cleaned.len() > 1 && rest.ends_with('/') {
        cleaned.push('/');
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let cases = [
            ("/", "a", "/a"),
            ("/w", "a", "/w/a"),
            ("/w", "a/", "/w/a/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/", ".", "/"),
            ("/w", "./", "/w/"),
            ("/w", "/x/.", "/x/."),
            ("/w", "/x//y/../z/", "/x/z/"),
            ("/w", "..", "/"),
            ("/w", "/", "/"),
            ("/w", "a/.", "/w/a/."),
        ];
        for (dir, path, want) in cases {
            assert_eq!(
                destination(dir, path, "linux").as_deref(),
                Ok(want),
                "{path:?} in {dir}"
            );
        }
    }

    #[test]
    fn workdirs() {
        let cases = [
            ("linux", "/a", "b/../c", Ok("/a/c")),
            ("linux", "/a", "/b/", Ok("/b/")),
            ("linux", "", "x", Ok("/x")),
            ("windows", "", "C:\\a\\b\\..", Ok("\\a")),
            ("windows", "\\a", "b", Ok("\\a\\b")),
            (
                "windows",
                "\\a",
                "d:\\b",
                Err("The specified path is not on the system drive (C:)"),
            ),
        ];
        for (os, current, path, want) in cases {
            let got = workdir(current, path, os);
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{path:?} in {current:?}");
        }
        assert!(is_absolute("c:\\x", "windows") && !is_absolute("x", "windows") && !is_absolute("\\x", "linux"));
    }
}

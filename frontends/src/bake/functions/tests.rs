//! The table of functions as a whole, and the translation of patterns. What each function gives is in the tables of
//! `frontends/tests`.

use super::re2::translate;
use super::*;

/// Every function that a bake file may call, by library.
const NAMES: &str = "
    absolute add and byteslen bytesslice ceil chomp chunklist coalesce coalescelist compact concat contains csvdecode
    distinct divide element equal flatten floor format formatdate formatlist greaterthan greaterthanorequalto hasindex
    indent index int join jsondecode jsonencode keys length lessthan lessthanorequalto log lookup lower max merge min
    modulo multiply negate not notequal or parseint pow range regex regex_replace regexall replace reverse reverselist
    sethaselement setintersection setproduct setsubtract setsymmetricdifference setunion signum slice sort split strlen
    substr subtract timeadd title trim trimprefix trimspace trimsuffix upper values zipmap
    cidrhost cidrnetmask cidrsubnet cidrsubnets bcrypt md5 rsadecrypt sha1 sha256 sha512 base64decode base64encode
    urlencode uuidv4 uuidv5 can try convert
    basename dirname formattimestamp homedir indexof sanitize semvercmp timestamp unixtimestampparse
";

#[test]
fn the_table_holds_every_function_and_no_other() {
    let mut wanted: Vec<&str> = NAMES.split_whitespace().collect();
    wanted.sort_unstable();
    let mut there: Vec<&str> = table().into_keys().chain(EXPRESSION_FUNCTIONS).collect();
    there.sort_unstable();
    assert_eq!(there, wanted);
}

#[test]
fn patterns_mean_what_they_mean_in_re2() {
    let cases = [
        (r"\d+", r"[0-9]+"),
        (r"[\w.]", r"[[0-9A-Za-z_].]"),
        (r"\bx\b", r"(?-u:\b)x(?-u:\b)"),
        (r"\Qa.b\E+", r"a\.b+"),
        (r"[]a]", r"[\]a]"),
        (r"[a&&b]", r"[a\&&b]"),
        (r"a{2,3}?", r"a{2,3}?"),
        (r"a{,2}", r"a\{,2}"),
        (r"\p{Greek}", r"\p{Greek}"),
        (r"\<\101\0", r"\x{3c}\x{41}\x{0}"),
        (r"(?i)(?P<n>a)", r"(?i)(?P<n>a)"),
    ];
    for (pattern, want) in cases {
        assert_eq!(translate(pattern).as_deref(), Ok(want), "{pattern}");
    }
}

#[test]
fn patterns_that_re2_refuses_are_refused() {
    for pattern in [
        r"a**", r"a*+", r"a{2}{3}", r"a{1001}", r"(?x)a", r"\u0041", r"\1", r"\h", r"a\", r"(?u:a)",
    ] {
        assert!(translate(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn the_budget_is_shared_by_all_calls() {
    let random = |_: &mut [u8]| {};
    let environment = Environment::new(0, "/root", &random);
    assert!(environment.charge(200 << 20).is_ok());
    assert!(environment.charge(200 << 20).is_err());
    assert!(environment.charge_elements(usize::MAX).is_err());
}

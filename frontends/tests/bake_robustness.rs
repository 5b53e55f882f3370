//! No text makes bake panic, exhaust the stack or fill memory.

use cbs_frontends::bake::{BakeOptions, MemoryHost, NoFetcher, load};
use proptest::prelude::*;

/// Loads one file; whether that works does not matter here.
fn outcome(name: &str, text: &str) -> Result<String, String> {
    let host = MemoryHost::default().with(&format!("/src/{name}"), text);
    let options = BakeOptions {
        files: vec![String::from(name)],
        working_directory: String::from("/src"),
        local_platform: String::from("linux/amd64"),
        ..BakeOptions::default()
    };
    load(&options, &host, &NoFetcher)
        .map(|bake| bake.print_json())
        .map_err(|error| error.to_string())
}

/// Pieces of the language, so that random sequences get beyond the first character.
const PIECES: &[&str] = &[
    "target",
    "group",
    "variable",
    "function",
    "\"default\"",
    "\"a\"",
    "args",
    "matrix",
    "name",
    "default",
    "type",
    "params",
    "result",
    "validation",
    "condition",
    "inherits",
    "targets",
    " = ",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\n",
    "\n",
    ",",
    ":",
    "=>",
    "...",
    "for ",
    " in ",
    " if ",
    "x",
    "y",
    "${",
    "}\"",
    "\"${",
    "%{if ",
    "%{endif}",
    "%{for ",
    "%{endfor}",
    "\"",
    "<<EOT\n",
    "EOT\n",
    "<<-EOT\n",
    "1",
    "0.5",
    "1e9",
    "-",
    "!",
    "+",
    "*",
    "/",
    "%",
    "==",
    "&&",
    "||",
    "?",
    ".",
    "[*]",
    ".*",
    "null",
    "true",
    "upper(",
    "range(",
    "format(\"%d\",",
    "regex(\"",
    "jsondecode(\"",
    "convert(",
    "try(",
    "target.a.tags",
    "list(string)",
    "object({",
    "optional(",
    "é",
    "\\u00e9",
    "\\",
    "$",
    "#",
    "//",
    "/*",
    "*/",
    "~",
    "services:\n",
    "  app:\n",
    "    build: .\n",
    "- ",
    "&a ",
    "*a",
    "<<: ",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..60).prop_map(|pieces| pieces.concat())
}

/// An expression that is well-formed most of the time.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "0",
        "-2.5",
        "1e30",
        "\"\"",
        "\"a,b\"",
        "\"é\"",
        "null",
        "true",
        "[]",
        "{}",
        "V",
        "[1, \"a\"]",
        "{ a = 1 }",
        "\"2020-01-02T03:04:05Z\"",
        "\"10.0.0.0/8\"",
        "\"[a-z]+\"",
        "setunion([1], [2])",
    ]);
    let leaf = leaf.prop_map(String::from);
    let functions = prop::sample::select(vec![
        "add",
        "chunklist",
        "cidrhost",
        "cidrsubnet",
        "cidrsubnets",
        "coalesce",
        "concat",
        "contains",
        "csvdecode",
        "distinct",
        "element",
        "flatten",
        "format",
        "formatdate",
        "formatlist",
        "formattimestamp",
        "hasindex",
        "indent",
        "index",
        "indexof",
        "int",
        "join",
        "jsondecode",
        "jsonencode",
        "keys",
        "length",
        "log",
        "lookup",
        "max",
        "merge",
        "modulo",
        "parseint",
        "pow",
        "range",
        "regex",
        "regex_replace",
        "regexall",
        "replace",
        "reverse",
        "reverselist",
        "semvercmp",
        "setproduct",
        "setsubtract",
        "signum",
        "slice",
        "sort",
        "split",
        "substr",
        "timeadd",
        "title",
        "trim",
        "unixtimestampparse",
        "urlencode",
        "uuidv5",
        "values",
        "zipmap",
        "rsadecrypt",
        "base64decode",
        "try",
        "can",
    ]);
    leaf.prop_recursive(4, 40, 4, move |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (functions.clone(), prop::collection::vec(inner.clone(), 0..4))
                .prop_map(|(name, arguments)| format!("{name}({})", arguments.join(", "))),
            (
                two.clone(),
                prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "<", "&&", "||"])
            )
                .prop_map(|((left, right), operator)| format!("({left} {operator} {right})")),
            (inner.clone(), two.clone()).prop_map(|(if_, (yes, no))| format!("({if_} ? {yes} : {no})")),
            two.clone()
                .prop_map(|(list, value)| format!("[for k, x in {list} : {value}]")),
            two.clone()
                .prop_map(|(list, value)| format!("{{for k, x in {list} : k => {value}...}}")),
            two.clone().prop_map(|(value, key)| format!("{value}[{key}]")),
            inner.clone().prop_map(|value| format!("{value}[*]")),
            inner.clone().prop_map(|value| format!("\"a${{{value}}}\"")),
            prop::collection::vec(inner, 0..3).prop_map(|values| format!("[{}]", values.join(", "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        for name in ["a.hcl", "a.json", "a.yml", "bakefile"] {
            let _any = outcome(name, &text);
        }
    }

    #[test]
    fn pieces_of_the_language_are_read_or_refused(text in soup()) {
        for name in ["a.hcl", "bakefile"] {
            let _any = outcome(name, &text);
        }
    }

    #[test]
    fn expressions_have_a_value_or_an_error(expression in expression()) {
        let text = format!(
            "variable \"V\" {{ default = \"v\" }}\ntarget \"default\" {{\n args = {{ v = jsonencode({expression}) }}\n}}\n"
        );
        let native = outcome("a.hcl", &text);
        // What is printed is a definition, which prints the same again.
        if let Ok(printed) = native {
            prop_assert_eq!(outcome("a.json", &printed), Ok(printed));
        }
    }

    #[test]
    fn strings_of_json_files_are_templates_or_refused(text in soup()) {
        let document = serde_json::json!({"target": {"default": {"args": {"v": text}}}});
        let _any = outcome("a.json", &document.to_string());
    }
}

#[test]
fn no_depth_of_nesting_exhausts_the_stack() {
    const DEPTH: usize = 100_000;
    let nest =
        |open: &str, inner: &str, close: &str| format!("x = {}{inner}{}\n", open.repeat(DEPTH), close.repeat(DEPTH));
    let texts = [
        nest("[", "", "]"),
        nest("(", "1", ")"),
        nest("{ a = ", "1", "}"),
        nest("-", "1", ""),
        nest("!", "true", ""),
        nest("upper(", "\"a\"", ")"),
        nest("\"${", "1", "}\""),
        nest("true ? 1 : ", "1", ""),
        nest("[for a in [1] : ", "a", "]"),
        nest("1 + ", "1", ""),
        nest("a", "", "[*]"),
        nest("a", "", ".*"),
        nest("a", "", "[b]"),
        nest("a", "", ".b"),
        nest("%{if true}", "1", "%{endif}"),
        format!("{}{}\n", "a {\n".repeat(DEPTH), "}\n".repeat(DEPTH)),
    ];
    for text in texts {
        let start: String = text.chars().take(40).collect();
        assert!(outcome("a.hcl", &text).is_err(), "{start}");
    }
    let json = format!("{{\"x\": {}{}}}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    assert!(outcome("a.json", &json).is_err());
    assert!(outcome("a.yml", &format!("x: {}{}", "[".repeat(DEPTH), "]".repeat(DEPTH))).is_err());
}

#[test]
fn no_chain_of_references_exhausts_the_stack() {
    let chain = |line: fn(usize) -> String| -> String { (0..20_000).map(line).collect() };
    let texts = [
        chain(|at| format!("v{at} = v{}\n", at + 1)),
        chain(|at| format!("variable \"v{at}\" {{ default = v{} }}\n", at + 1)),
        chain(|at| format!("function \"f{at}\" {{\n params = []\n result = f{}()\n}}\n", at + 1)),
        chain(|at| format!("target \"t{at}\" {{ context = target.t{}.context }}\n", at + 1)),
        chain(|at| format!("target \"t{at}\" {{ inherits = [\"t{}\"] }}\n", at + 1))
            + "group \"default\" { targets = [\"t0\"] }\n",
    ];
    for text in texts {
        let start: String = text.chars().take(40).collect();
        assert!(outcome("a.hcl", &text).is_err(), "{start}");
    }
}

#[test]
fn memory_is_bounded() {
    let doubled = |line: fn(usize) -> String| -> String {
        let lines: String = (0..60).map(line).collect();
        format!("a0 = \"{}\"\n{lines}", "x".repeat(64))
    };
    let texts = [
        String::from("x = range(1e9)\n"),
        String::from("x = range(0, 1, 1e-9)\n"),
        String::from("x = format(\"%1000000000s\", \"a\")\n"),
        String::from("x = format(\"%.1000000000f\", 1)\n"),
        String::from("x = indent(1000000000, \"a\\nb\")\n"),
        String::from("x = setproduct(range(1000), range(1000), range(1000))\n"),
        String::from("x = [for a in range(1000) : [for b in range(1000) : [for c in range(1000) : c]]]\n"),
        String::from(
            "target \"t\" {\n matrix = { a = range(1000), b = range(1000), c = range(1000) }\n name = \"x\"\n}\n",
        ),
        doubled(|at| format!("a{} = \"${{a{at}}}${{a{at}}}\"\n", at + 1)),
        doubled(|at| format!("a{} = [a{at}, a{at}]\n", at + 1)) + "x = jsonencode(a60)\n",
        doubled(|at| format!("a{} = [a{at}, a{at}]\n", at + 1)) + "x = flatten(a60)\n",
    ];
    for text in texts {
        let start: String = text.chars().take(60).collect();
        let message = outcome("a.hcl", &text).expect_err(&start);
        let is_refused = ["MiB", "more than 1024", "longer"]
            .iter()
            .any(|words| message.contains(words));
        assert!(is_refused, "{start}: {message}");
    }
}

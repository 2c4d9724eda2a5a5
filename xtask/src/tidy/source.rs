//! Reading Rust source as text: enough of it for the rules, without a parser.

/// The file up to its unit tests.
pub(crate) fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests")
        .map_or(text, |end| &text[..end + 1])
}

/// The code without line comments; strings stay, since no path of ours stands in one.
pub(crate) fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n")
}

/// All paths that begin with `crate::`, in `use` trees and in expressions, without that prefix: `a::b`, `a::c::*`.
pub(crate) fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let named_so = code[..at]
            .chars()
            .next_back()
            .is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
        if named_so {
            tree(&code[at + prefix.len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one `use` tree, such as `a::{b, c as d}`, adds its paths below `base`, and returns what follows it.
fn tree<'a>(text: &'a str, base: &str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            if rest.is_empty() {
                return rest;
            }
            let before = rest.len();
            rest = tree(rest, base, paths);
            // Something that is no tree: an expression that only looks like one.
            if rest.len() == before {
                return rest;
            }
        }
    }
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if base.is_empty() {
        name.to_owned()
    } else {
        format!("{base}::{name}")
    };
    if let Some(inside) = rest.strip_prefix("::") {
        return tree(inside, &path, paths);
    }
    if !name.is_empty() {
        paths.push(path);
    }
    let renamed = rest.trim_start().strip_prefix("as ").map(|new| new.trim_start());
    renamed.map_or(rest, |new| {
        new.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
    })
}

/// Whether a path of the crate `name` is used: `name::`.
pub(crate) fn mentions(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'))
    })
}

/// Names of BPF maps, as the kernel shows them: `name = "…"` of the map's attribute, else that of the `static` below.
pub(crate) fn map_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !(line.starts_with("#[map") || line.starts_with("#[btf_map")) {
            continue;
        }
        let Some(item) = lines.find(|line| line.contains("static ")) else {
            break;
        };
        let word: fn(&char) -> bool = |c| c.is_alphanumeric() || *c == '_';
        let given = line.split_once("name = \"").map(|(_, name)| name);
        let name = given.or_else(|| item.split("static ").nth(1)).unwrap_or_default();
        names.push(name.trim_start_matches("mut ").chars().take_while(word).collect());
    }
    names
}

/// Values of string constants: `const NAME: &str = "value";`.
pub(crate) fn string_constants(text: &str) -> Vec<String> {
    let code = without_comments(without_tests(text));
    let constants = code
        .split(';')
        .filter(|item| item.contains("const ") && item.contains("&str"));
    constants
        .filter_map(|item| Some(item.split('"').nth(1)?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_trees_are_read() {
        let code = "use crate::{a::b, c::{d, e as f, g::*}, h};\nlet x = crate::i::j(k);\nmycrate::no();";
        assert_eq!(
            crate_paths(code),
            ["a::b", "c::d", "c::e", "c::g::*", "h", "i::j"]
        );
    }

    #[test]
    fn crates_are_found_by_their_own_name() {
        assert!(mentions("use tokio::net;", "tokio"));
        assert!(mentions("fn f() { tokio::spawn(x) }", "tokio"));
        assert!(!mentions("use mytokio::net; a::tokio::b", "tokio"));
        assert!(!mentions(&without_comments("// tokio::spawn\n"), "tokio"));
    }

    #[test]
    fn maps_and_constants_are_found() {
        let maps = "/// Pods.\n#[map]\nstatic PODS: HashMap<u64, Pod> = x;\n#[btf_map(name = \"DERNY_HITS\")]\npub(crate) static HITS: A = y;";
        assert_eq!(map_names(maps), ["PODS", "DERNY_HITS"]);
        let constants =
            "pub const A: &str = \"derny_a\";\nconst B: &str =\n    \"derny_b\"; const N: u32 = 1;";
        assert_eq!(string_constants(constants), ["derny_a", "derny_b"]);
    }
}

//! A Rust file, read as far as the rules ask.

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ExprTuple, ImplItem, Item, ItemConst, ItemUse, Lit, Meta, UseTree, Visibility,
    visit::{self, Visit},
    visit_mut::{self, VisitMut},
};

/// The segments of a path, as they stand in the source. A glob ends in `*`.
pub(super) type Names = Vec<String>;

/// A file without its unit tests.
pub(super) struct Source {
    file: syn::File,
    /// Files of its own module that are compiled for tests alone.
    test_modules: Vec<String>,
}

impl Source {
    /// # Errors
    /// What the compiler would say as well.
    pub(super) fn parse(text: &str) -> syn::Result<Self> {
        let mut file = syn::parse_file(text)?;
        let modules = file.items.iter().filter_map(|item| match item {
            Item::Mod(module) if module.content.is_none() && for_tests(&module.attrs) => Some(&module.ident),
            _ => None,
        });
        let test_modules = modules.map(ToString::to_string).collect();
        WithoutTests.visit_file_mut(&mut file);
        Ok(Self { file, test_modules })
    }

    pub(super) fn test_modules(&self) -> &[String] {
        &self.test_modules
    }

    /// All paths of `use` items, expressions, types, and the arguments of macros.
    pub(super) fn paths(&self) -> Vec<Names> {
        let mut paths = Paths::default();
        paths.visit_file(&self.file);
        paths.found
    }

    /// What `pub use` items of the file itself pass on: the name that it has here, and the path.
    pub(super) fn reexports(&self) -> Vec<(String, Names)> {
        let uses = self.file.items.iter().filter_map(|item| match item {
            Item::Use(item) if !matches!(item.vis, Visibility::Inherited) => Some(item),
            _ => None,
        });
        uses.flat_map(|item| leaves(&item.tree)).collect()
    }

    /// Variants of the enum of this name.
    pub(super) fn variants(&self, name: &str) -> Vec<String> {
        let items = self.file.items.iter();
        let variants = items.filter_map(|item| match item {
            Item::Enum(item) if item.ident == name => Some(item.variants.iter()),
            _ => None,
        });
        variants
            .flatten()
            .map(|variant| variant.ident.to_string())
            .collect()
    }

    /// Names of BPF maps, as the kernel shows them: `name = "…"` of the map's attribute, else that of the `static`.
    pub(super) fn map_names(&self) -> Vec<String> {
        let maps = self.file.items.iter().filter_map(|item| match item {
            Item::Static(map) => Some(map),
            _ => None,
        });
        maps.filter_map(|map| {
            let of_map = |attribute: &&Attribute| {
                attribute.path().is_ident("map") || attribute.path().is_ident("btf_map")
            };
            let attribute = map.attrs.iter().find(of_map)?;
            let given = match &attribute.meta {
                Meta::List(list) => first_literal(list.tokens.clone()),
                _ => None,
            };
            Some(given.unwrap_or_else(|| map.ident.to_string()))
        })
        .collect()
    }

    /// First parts of the constants that are a name and its help.
    pub(super) fn metric_names(&self) -> Vec<String> {
        let mut names = MetricNames::default();
        names.visit_file(&self.file);
        names.0
    }
}

/// Takes out whatever is compiled for tests alone.
struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !for_tests(attributes(item)));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| !for_tests(attributes(item)));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, item: &mut syn::ItemImpl) {
        item.items.retain(|item| match item {
            ImplItem::Fn(function) => !for_tests(&function.attrs),
            _ => true,
        });
    }
}

fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[derive(Default)]
struct Paths {
    found: Vec<Names>,
}

impl Visit<'_> for Paths {
    fn visit_item_use(&mut self, item: &ItemUse) {
        self.found
            .extend(leaves(&item.tree).into_iter().map(|(_, path)| path));
    }

    fn visit_path(&mut self, path: &syn::Path) {
        if path.segments.len() > 1 {
            self.found
                .push(path.segments.iter().map(|it| it.ident.to_string()).collect());
        }
        // Generic arguments are types, which have paths.
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, of: &syn::Macro) {
        in_tokens(of.tokens.clone(), &mut self.found);
        visit::visit_macro(self, of);
    }
}

/// What a `use` brings in: each name as it is known from then on, and its whole path.
fn leaves(tree: &UseTree) -> Vec<(String, Names)> {
    match tree {
        UseTree::Path(path) => {
            let below = leaves(&path.tree).into_iter();
            let first = path.ident.to_string();
            let whole = |names: Names| [vec![first.clone()], names].concat();
            below
                .map(|(name, names)| {
                    // `a::{self}` is `a`.
                    let is_self = names == ["self"];
                    match is_self && name == "self" {
                        true => (first.clone(), vec![first.clone()]),
                        false if is_self => (name, vec![first.clone()]),
                        false => (name, whole(names)),
                    }
                })
                .collect()
        }
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(name) => vec![(name.rename.to_string(), vec![name.ident.to_string()])],
        UseTree::Glob(_) => vec![("*".to_owned(), vec!["*".to_owned()])],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// Paths in what a macro is given, which is no syntax tree: names with `::` between them.
fn in_tokens(tokens: TokenStream, found: &mut Vec<Names>) {
    let mut names = Names::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    keep(&mut names, found);
                }
                names.push(ident.to_string());
                colons = 0;
            }
            other => {
                keep(&mut names, found);
                colons = 0;
                if let TokenTree::Group(group) = other {
                    in_tokens(group.stream(), found);
                }
            }
        }
    }
    keep(&mut names, found);
}

fn keep(names: &mut Names, found: &mut Vec<Names>) {
    let path = std::mem::take(names);
    if path.len() > 1 {
        found.push(path);
    }
}

#[derive(Default)]
struct MetricNames(Vec<String>);

impl Visit<'_> for MetricNames {
    fn visit_item_const(&mut self, item: &ItemConst) {
        if let Expr::Tuple(ExprTuple { elems, .. }) = &*item.expr
            && let Some(Expr::Lit(literal)) = elems.first()
            && let Lit::Str(name) = &literal.lit
        {
            self.0.push(name.value());
        }
    }
}

fn first_literal(tokens: TokenStream) -> Option<String> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Literal(literal) => {
            let literal: Lit = syn::parse_str(&literal.to_string()).ok()?;
            match literal {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            }
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        let paths = Source::parse(code).unwrap().paths();
        paths.iter().map(|names| names.join("::")).collect()
    }

    #[test]
    fn use_trees_are_read() {
        let code = "use crate::{a::b, c::{self, d, e as f, g::*}, h}; use tokio;";
        assert_eq!(
            paths(code),
            [
                "crate::a::b",
                "crate::c",
                "crate::c::d",
                "crate::c::e",
                "crate::c::g::*",
                "crate::h",
                "tokio"
            ]
        );
    }

    #[test]
    fn paths_stand_in_expressions_types_and_macros() {
        let code = "fn f(x: Vec<crate::a::B>) { let y = crate::c::d(1); println!(\"{}\", crate::e::f(super::g::H { i: 2 })); }";
        assert_eq!(
            paths(code),
            ["crate::a::B", "crate::c::d", "crate::e::f", "super::g::H"]
        );
    }

    #[test]
    fn what_is_compiled_for_tests_is_no_part_of_it() {
        let code = "#[cfg(test)] use crate::a::B; #[cfg(test)] mod tests { use crate::c; } impl D { #[cfg(test)] fn e() { crate::f::g() } }";
        assert_eq!(paths(code), Vec::<String>::new());
    }

    #[test]
    fn what_is_passed_on_is_found() {
        let source = Source::parse("pub use a::{B, c::D as E}; use f::G; pub(super) use h::I;").unwrap();
        let passed: Vec<_> = source
            .reexports()
            .into_iter()
            .map(|(name, path)| (name, path.join("::")))
            .collect();
        let expected = [("B", "a::B"), ("E", "a::c::D"), ("I", "h::I")];
        assert_eq!(
            passed,
            expected.map(|(name, path)| (name.to_owned(), path.to_owned()))
        );
    }

    #[test]
    fn maps_and_metrics_are_found() {
        let maps = "#[map]\nstatic PODS: HashMap<u64, Pod> = x;\n#[btf_map(name = \"DERNY_HITS\")]\npub(crate) static HITS: A = y; static NO: u8 = 1;";
        assert_eq!(Source::parse(maps).unwrap().map_names(), ["PODS", "DERNY_HITS"]);
        let names = "pub const A: Name = (\"derny_a\", \"help\");\nconst N: u32 = 1;";
        assert_eq!(Source::parse(names).unwrap().metric_names(), ["derny_a"]);
    }
}

//! What can be called of the core is called in the image that shows that nothing in it panics, and that is measured.

use std::collections::BTreeSet;
use std::iter;
use std::path::{Path, PathBuf};

use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, File, ImplItem, ImplItemFn, Item, ItemImpl, Token, Type, UseTree, Visibility};

/// The functions of public types and the free ones, as `Type::name` and `module::name`, and what of them is shown as text, as
/// `display::<Type>` and `debug::<Type>`.
type Names = BTreeSet<String>;

/// `Debug` of these shows a text, mostly a device's name, by that of `str` in the library `core`, which can panic, as far as the linker
/// knows.
const SHOW_NAMES: [&str; 11] = [
    "DeviceInfo",
    "IrqRefusal",
    "MappedRange",
    "Owner",
    "Property",
    "RangeRefusal",
    "RegisterError",
    "RelocateError",
    "RerouteError",
    "ResetError",
    "UnregisterError",
];

#[test]
fn the_image_calls_every_public_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let public = public_functions(&root.join("../src/lib.rs"));
    let called = called_functions(&root.join("footprint/src"));
    assert!(public.len() > 150 && public.contains("DeviceManager::new"), "the sources are not as expected: {public:?}");
    let names: Names = SHOW_NAMES.iter().map(|name| format!("debug::<{name}>")).collect();
    assert!(names.is_subset(&public), "{SHOW_NAMES:?}");
    let missing: Vec<_> = public.difference(&called).filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "hosttest/footprint does not call {missing:#?}");
    let gone: Vec<_> = called.iter().filter(|name| is_ours(name, &public)).collect();
    assert!(gone.is_empty(), "hosttest/footprint has names that are not public functions: {gone:#?}");
}

/// Whether a name that is not among the public functions looks like one. That of a variant begins with a capital letter.
fn is_ours(name: &str, public: &Names) -> bool {
    let of_type = |name: &str| name.split_once("::").map(|(name, _)| name.to_owned());
    let is_variant = name.rsplit("::").next().is_some_and(|last| last.starts_with(char::is_uppercase));
    !public.contains(name)
        && !is_variant
        && of_type(name).is_some_and(|ours| public.iter().any(|name| of_type(name) == Some(ours.clone())))
}

fn parse(path: &Path) -> File {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The modules of a crate, but those that are compiled under a condition: tests, models, features.
struct Module {
    name: String,
    is_public: bool,
    items: Vec<Item>,
}

fn modules(name: &str, path: &Path, directory: &Path, is_public: bool, found: &mut Vec<Module>) {
    let items: Vec<Item> = parse(path).items.into_iter().flat_map(flattened).collect();
    for item in &items {
        if let Item::Mod(module) = item
            && module.content.is_none()
            && !module.attrs.iter().any(is_condition)
        {
            let name = module.ident.to_string();
            let inner = directory.join(&name);
            let file = [directory.join(format!("{name}.rs")), inner.join("mod.rs")];
            let file = file.into_iter().find(|file| file.exists()).unwrap_or_else(|| panic!("no file of {name}"));
            let is_public = is_public && matches!(module.vis, Visibility::Public(_));
            modules(&name, &file, &inner, is_public, found);
        }
    }
    found.push(Module { name: name.into(), is_public, items });
}

/// The items that a `cfg_if!` of the crate's root holds: `if #[cfg(...)] { ITEMS }`. Any other item is itself.
fn flattened(item: Item) -> Vec<Item> {
    match item {
        Item::Macro(item) if item.mac.path.is_ident("cfg_if") => {
            let inside = |input: ParseStream<'_>| {
                let content;
                input.parse::<Token![if]>()?;
                input.call(Attribute::parse_outer)?;
                syn::braced!(content in input);
                iter::from_fn(|| (!content.is_empty()).then(|| content.parse())).collect()
            };
            inside.parse2(item.mac.tokens).expect("a condition and items")
        }
        item => vec![item],
    }
}

fn is_condition(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
}

fn public_functions(lib: &Path) -> Names {
    let mut found = Vec::new();
    modules("vm_device", lib, lib.parent().unwrap_or(lib), true, &mut found);
    let mut types = Names::new();
    let mut functions = Names::new();
    let public = found.iter().filter(|module| module.is_public);
    for (module, item) in public.flat_map(|module| module.items.iter().map(move |item| (&module.name, item))) {
        match item {
            Item::Use(item) if is_public(&item.vis) && !item.attrs.iter().any(is_condition) => {
                used_names(&item.tree, &mut types);
            }
            Item::Struct(item) if is_public(&item.vis) => drop(types.insert(item.ident.to_string())),
            Item::Enum(item) if is_public(&item.vis) => drop(types.insert(item.ident.to_string())),
            Item::Fn(item) if is_public(&item.vis) => drop(functions.insert(format!("{module}::{}", item.sig.ident))),
            _ => {}
        }
    }
    let items = || found.iter().flat_map(|module| &module.items);
    let private_trait = |item: &Item| match item {
        Item::Trait(item) if !is_public(&item.vis) => Some(item.ident.to_string()),
        _ => None,
    };
    let private_traits: Names = items().filter_map(private_trait).collect();
    for item in items() {
        match item {
            Item::Impl(item) => of_impl(item, &types, &private_traits, &mut functions),
            Item::Struct(item) if derives_debug(&item.attrs) => shown("debug", &item.ident, &types, &mut functions),
            Item::Enum(item) if derives_debug(&item.attrs) => shown("debug", &item.ident, &types, &mut functions),
            _ => {}
        }
    }
    functions
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn used_names(tree: &UseTree, names: &mut Names) {
    match tree {
        UseTree::Path(path) => used_names(&path.tree, names),
        UseTree::Group(group) => group.items.iter().for_each(|tree| used_names(tree, names)),
        UseTree::Name(name) => drop(names.insert(name.ident.to_string())),
        UseTree::Rename(_) | UseTree::Glob(_) => panic!("the core renames nothing and has no globs"),
    }
}

fn derives_debug(attributes: &[Attribute]) -> bool {
    let mut found = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        let outcome = attribute.parse_nested_meta(|meta| {
            found |= meta.path.is_ident("Debug");
            Ok(())
        });
        outcome.expect("a list of traits");
    }
    found
}

fn shown(how: &str, name: &syn::Ident, types: &Names, functions: &mut Names) {
    if types.contains(&name.to_string()) {
        functions.insert(format!("{how}::<{name}>"));
    }
}

fn of_impl(item: &ItemImpl, types: &Names, private_traits: &Names, functions: &mut Names) {
    let Type::Path(path) = &*item.self_ty else { return };
    let Some(name) = path.path.segments.last().map(|segment| &segment.ident) else { return };
    if !types.contains(&name.to_string()) {
        return;
    }
    let of_trait = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
    match of_trait.map(|segment| segment.ident.to_string()).as_deref() {
        Some("Display") => shown("display", name, types, functions),
        Some("Debug") => shown("debug", name, types, functions),
        Some("From") => drop(functions.insert(format!("{name}::from"))),
        Some("Default") => drop(functions.insert(format!("{name}::default"))),
        // Of an error, the source; a device is called by the manager, and a handle is dropped where it is used.
        Some("Error") if !item.items.is_empty() => drop(functions.insert(format!("{name}::source"))),
        Some("Error" | "Device" | "Drop") => {}
        // Nothing outside of the core can call it.
        Some(private) if private_traits.contains(private) => {}
        Some(other) => panic!("what is called of {other} for {name}?"),
        None => {
            let mut add = |function: &ImplItemFn| {
                if is_public(&function.vis) {
                    functions.insert(format!("{name}::{}", function.sig.ident));
                }
            };
            for item in &item.items {
                match item {
                    ImplItem::Fn(function) => add(function),
                    // `const_fn!`, which makes a function constant where it can be.
                    ImplItem::Macro(item) => add(&item.mac.parse_body().expect("a function")),
                    _ => {}
                }
            }
        }
    }
}

/// The functions that the image calls by a path, or by its macro `call`.
fn called_functions(directory: &Path) -> Names {
    let mut calls = Calls(Names::new());
    let files = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for file in files {
        let path: PathBuf = file.expect("a file").path();
        calls.visit_file(&parse(&path));
    }
    calls.0
}

struct Calls(Names);

impl Calls {
    fn function(&mut self, function: &Expr) {
        let Expr::Path(path) = function else { return };
        let segments: Vec<_> = path.path.segments.iter().collect();
        match segments.as_slice() {
            [.., function] if function.ident == "display" || function.ident == "debug" => {
                if let syn::PathArguments::AngleBracketed(types) = &function.arguments
                    && let Some(syn::GenericArgument::Type(Type::Path(of))) = types.args.first()
                    && let Some(of) = of.path.segments.last()
                {
                    self.0.insert(format!("{}::<{}>", function.ident, of.ident));
                }
            }
            [.., of, function] => drop(self.0.insert(format!("{}::{}", of.ident, function.ident))),
            // The image's own.
            [_] | [] => {}
        }
    }
}

impl<'ast> Visit<'ast> for Calls {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        self.function(&call.func);
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        if mac.path.is_ident("call") {
            let arguments = Punctuated::<Expr, Token![,]>::parse_terminated;
            let arguments = arguments.parse2(mac.tokens.clone()).expect("a function and its arguments");
            if let Some(function) = arguments.first() {
                self.function(function);
            }
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
    }
}

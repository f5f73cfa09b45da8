//! C and C++, whose declarations are read from the inside out.

use tree_sitter::Node;

use super::super::{Inside, function};
use super::{Declared, Step};
use crate::job::repo_index::SymbolKind as Kind;

/// Pointers to functions that give pointers and so on: nobody goes further.
const MOST_DECLARATORS: usize = 16;

pub(super) fn c(node: Node<'_>, inside: Inside) -> Step<'_> {
    match node.kind() {
        "function_definition" => declaration(node, inside, false),
        "declaration" | "field_declaration" => declaration(node, inside, true),
        "type_definition" => {
            let mut step = specified(node);
            if let Step::Declares { declared, .. } = &mut step {
                let mut cursor = node.walk();
                let names = node.children_by_field_name("declarator", &mut cursor).filter_map(|one| named(one));
                declared.extend(names.map(|Named { name, .. }| Declared { kind: Kind::Type, name }));
            }
            step
        }
        "struct_specifier" | "union_specifier" | "class_specifier" | "enum_specifier" => specifier(node),
        "preproc_def" if node.child_by_field_name("value").is_some() => Step::named(Kind::Constant, node),
        "preproc_function_def" => Step::named(Kind::Macro, node),
        "namespace_definition" => Step::named(Kind::Module, node).with_body(node, Inside::Module),
        "alias_declaration" => Step::named(Kind::Type, node),
        "concept_definition" => Step::named(Kind::Trait, node),
        "template_declaration"
        | "linkage_specification"
        | "declaration_list"
        | "preproc_if"
        | "preproc_ifdef"
        | "preproc_else"
        | "preproc_elif"
        | "preproc_elifdef"
        | "field_declaration_list" => Step::Through,
        _ => Step::Over,
    }
}

/// A struct, union, class or enumeration that is defined here, not only mentioned.
fn specifier(node: Node<'_>) -> Step<'_> {
    if node.child_by_field_name("body").is_none() {
        return Step::Over;
    }
    let kind = match node.kind() {
        "union_specifier" => Kind::Union,
        "class_specifier" => Kind::Class,
        "enum_specifier" => return Step::named(Kind::Enum, node),
        _ => Kind::Struct,
    };
    Step::named(kind, node).with_body(node, Inside::Type)
}

/// What a declaration defines on the way: `struct a { … } b;`.
fn specified(node: Node<'_>) -> Step<'_> {
    match node.child_by_field_name("type").map(specifier) {
        Some(step @ Step::Declares { .. }) => step,
        _ => Step::Declares { declared: Vec::new(), body: None },
    }
}

/// Functions, and what stays as it is.
fn declaration(node: Node<'_>, inside: Inside, several: bool) -> Step<'_> {
    let mut step = specified(node);
    let mut cursor = node.walk();
    let stays = node.children(&mut cursor).any(|child| {
        child.kind() == "type_qualifier"
            && child.child(0).is_some_and(|word| matches!(word.kind(), "const" | "constexpr"))
    });
    let mut cursor = node.walk();
    let declarators = node.children_by_field_name("declarator", &mut cursor).take(if several { usize::MAX } else { 1 });
    let names = declarators.filter_map(|declarator| {
        let Named { name, is_function, is_qualified } = named(declarator)?;
        let kind = match inside {
            _ if is_function && is_qualified => Kind::Method,
            _ if is_function => function(inside),
            _ if stays && declarator.kind() == "init_declarator" => Kind::Constant,
            _ => return None,
        };
        Some(Declared { kind, name })
    });
    if let Step::Declares { declared, .. } = &mut step {
        declared.extend(names);
    }
    step
}

struct Named<'t> {
    name: Node<'t>,
    is_function: bool,
    /// `Type::name`.
    is_qualified: bool,
}

/// The name inside of a declarator, under pointers, arrays and arguments.
fn named(mut node: Node<'_>) -> Option<Named<'_>> {
    let (mut is_function, mut is_qualified) = (false, false);
    for _ in 0..MOST_DECLARATORS {
        node = match node.kind() {
            "identifier" | "field_identifier" | "type_identifier" | "destructor_name" | "operator_name" => {
                return Some(Named { name: node, is_function, is_qualified });
            }
            "qualified_identifier" => {
                is_qualified = true;
                node.child_by_field_name("name")?
            }
            "template_function" | "template_method" => node.child_by_field_name("name")?,
            "operator_cast" => {
                return Some(Named { name: node.child_by_field_name("type")?, is_function: true, is_qualified });
            }
            "function_declarator" => {
                let inner = node.child_by_field_name("declarator")?;
                // A pointer to a function is none.
                is_function = inner.kind() != "parenthesized_declarator";
                inner
            }
            _ => node.child_by_field_name("declarator").or_else(|| node.named_child(0))?,
        };
    }
    None
}

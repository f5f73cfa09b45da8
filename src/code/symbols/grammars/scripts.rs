//! Python, JavaScript and TypeScript.

use tree_sitter::Node;

use super::super::{Inside, function};
use super::{Declared, Step};
use crate::job::repo_index::SymbolKind as Kind;

pub(super) fn python<'t>(node: Node<'t>, inside: Inside, text: &str) -> Step<'t> {
    match node.kind() {
        "function_definition" => Step::named(function(inside), node),
        "class_definition" => Step::named(Kind::Class, node).with_body(node, Inside::Type),
        "expression_statement" => {
            let assigned = node.named_child(0).filter(|inner| inner.kind() == "assignment");
            let name = assigned.and_then(|inner| inner.child_by_field_name("left"));
            match name.filter(|name| name.kind() == "identifier" && is_constant(text, *name)) {
                Some(name) => Step::of(Kind::Constant, Some(name)),
                None => Step::Over,
            }
        }
        "type_alias_statement" => Step::of(Kind::Type, node.child_by_field_name("left")),
        // Definitions may depend on the version, or on what can be imported.
        "decorated_definition"
        | "if_statement"
        | "elif_clause"
        | "else_clause"
        | "try_statement"
        | "except_clause"
        | "finally_clause"
        | "with_statement"
        | "block" => Step::Through,
        _ => Step::Over,
    }
}

/// By custom, constants are written in capitals.
fn is_constant(text: &str, name: Node<'_>) -> bool {
    let name = text.get(name.byte_range()).unwrap_or_default();
    name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase)
}

pub(super) fn javascript(node: Node<'_>, inside: Inside) -> Step<'_> {
    match node.kind() {
        "function_declaration" | "generator_function_declaration" | "function_signature" => {
            Step::named(function(inside), node)
        }
        "class_declaration" | "abstract_class_declaration" => {
            Step::named(Kind::Class, node).with_body(node, Inside::Type)
        }
        "method_definition" | "method_signature" | "abstract_method_signature" => Step::named(Kind::Method, node),
        "interface_declaration" => Step::named(Kind::Interface, node).with_body(node, Inside::Type),
        "type_alias_declaration" => Step::named(Kind::Type, node),
        "enum_declaration" => Step::named(Kind::Enum, node),
        "internal_module" | "module" => Step::named(Kind::Module, node).with_body(node, Inside::Module),
        "lexical_declaration" | "variable_declaration" => variables(node),
        "field_definition" | "public_field_definition" => {
            let is_function = node.child_by_field_name("value").is_some_and(makes_function);
            let name = node.child_by_field_name("name").or_else(|| node.child_by_field_name("property"));
            if is_function { Step::of(Kind::Method, name) } else { Step::Over }
        }
        "export_statement" | "ambient_declaration" => Step::Through,
        "expression_statement" if node.named_child(0).is_some_and(|inner| inner.kind() == "internal_module") => {
            Step::Through
        }
        _ => Step::Over,
    }
}

fn makes_function(value: Node<'_>) -> bool {
    matches!(value.kind(), "arrow_function" | "function_expression" | "generator_function")
}

/// `const f = () => …` is a function, `const x = …` a constant; what can change is neither.
fn variables(node: Node<'_>) -> Step<'_> {
    let stays = node.child_by_field_name("kind").is_some_and(|word| word.kind() == "const");
    let mut cursor = node.walk();
    let declared = node.named_children(&mut cursor).filter_map(|one| {
        let name = one.child_by_field_name("name").filter(|name| name.kind() == "identifier")?;
        let kind = match one.child_by_field_name("value") {
            Some(value) if makes_function(value) => Kind::Function,
            Some(value) if value.kind() == "class" => Kind::Class,
            _ if stays => Kind::Constant,
            _ => return None,
        };
        Some(Declared { kind, name })
    });
    Step::Declares { declared: declared.collect(), body: None }
}

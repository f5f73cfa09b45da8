//! Which nodes of each grammar define something, and which are looked into.

use tree_sitter::{Language, Node};

use super::{Inside, function};
use crate::job::repo_index::SymbolKind;

mod c;
mod scripts;

/// A grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    Rust,
    Python,
    JavaScript,
    TypeScript,
    Tsx,
    Go,
    C,
    Cpp,
    Java,
}

/// Something with a name.
pub(super) struct Declared<'t> {
    pub(super) kind: SymbolKind,
    pub(super) name: Node<'t>,
}

/// What to do with a node.
pub(super) enum Step<'t> {
    /// Nothing.
    Over,
    /// Look at what it holds as if it stood here.
    Through,
    /// List what it declares, and look into its body.
    Declares { declared: Vec<Declared<'t>>, body: Option<(Node<'t>, Inside)> },
}

impl<'t> Step<'t> {
    /// A node whose field `name` is its name.
    fn named(kind: SymbolKind, node: Node<'t>) -> Self {
        Self::of(kind, node.child_by_field_name("name"))
    }

    fn of(kind: SymbolKind, name: Option<Node<'t>>) -> Self {
        Self::Declares { declared: name.map(|name| Declared { kind, name }).into_iter().collect(), body: None }
    }

    /// That has a body in the field `body`.
    fn with_body(self, node: Node<'t>, inside: Inside) -> Self {
        match self {
            Self::Declares { declared, .. } => {
                Self::Declares { declared, body: node.child_by_field_name("body").map(|body| (body, inside)) }
            }
            other => other,
        }
    }
}

impl Grammar {
    /// The grammar of a language.
    pub(super) fn of(language: &str) -> Option<Self> {
        Some(match language {
            "Rust" => Self::Rust,
            "Python" => Self::Python,
            "JavaScript" => Self::JavaScript,
            "TypeScript" => Self::TypeScript,
            "TSX" => Self::Tsx,
            "Go" => Self::Go,
            "C" => Self::C,
            "C++" => Self::Cpp,
            "Java" => Self::Java,
            _ => return None,
        })
    }

    /// As tree-sitter has it.
    pub(super) fn language(self) -> Language {
        match self {
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX.into(),
            Self::Go => tree_sitter_go::LANGUAGE.into(),
            Self::C => tree_sitter_c::LANGUAGE.into(),
            Self::Cpp => tree_sitter_cpp::LANGUAGE.into(),
            Self::Java => tree_sitter_java::LANGUAGE.into(),
        }
    }

    pub(super) fn is_comment(self, node: Node<'_>) -> bool {
        matches!(node.kind(), "comment" | "line_comment" | "block_comment")
    }

    /// What belongs to the definition behind it.
    pub(super) fn is_attribute(self, node: Node<'_>) -> bool {
        matches!(node.kind(), "attribute_item" | "decorator" | "template_parameter_list" | "requires_clause")
    }

    /// Whether a comment in front of a definition documents it. Rust has comments of its own for that.
    pub(super) fn documents(self, comment: &str) -> bool {
        self != Self::Rust || comment.starts_with("///") || comment.starts_with("/**")
    }

    /// Where a definition documents itself from inside.
    pub(super) fn inner_documentation(self, node: Node<'_>) -> Option<Node<'_>> {
        if self != Self::Python {
            return None;
        }
        let first = node.child_by_field_name("body")?.named_child(0)?;
        let text = if first.kind() == "expression_statement" { first.named_child(0)? } else { first };
        (text.kind() == "string").then_some(text)
    }

    pub(super) fn step<'t>(self, node: Node<'t>, inside: Inside, text: &str) -> Step<'t> {
        // What a grammar could not read may hold what it can.
        if node.is_error() {
            return Step::Through;
        }
        match self {
            Self::Rust => rust(node, inside),
            Self::Python => scripts::python(node, inside, text),
            Self::JavaScript | Self::TypeScript | Self::Tsx => scripts::javascript(node, inside),
            Self::Go => go(node),
            Self::C | Self::Cpp => c::c(node, inside),
            Self::Java => java(node, text),
        }
    }
}

fn rust(node: Node<'_>, inside: Inside) -> Step<'_> {
    use SymbolKind as Kind;
    match node.kind() {
        "function_item" | "function_signature_item" => Step::named(function(inside), node),
        "struct_item" => Step::named(Kind::Struct, node),
        "union_item" => Step::named(Kind::Union, node),
        "enum_item" => Step::named(Kind::Enum, node),
        "type_item" => Step::named(Kind::Type, node),
        "const_item" | "static_item" => Step::named(Kind::Constant, node),
        "macro_definition" => Step::named(Kind::Macro, node),
        "trait_item" => Step::named(Kind::Trait, node).with_body(node, Inside::Type),
        "mod_item" => Step::named(Kind::Module, node).with_body(node, Inside::Module),
        "impl_item" => Step::Declares { declared: Vec::new(), body: None }.with_body(node, Inside::Type),
        "foreign_mod_item" | "declaration_list" => Step::Through,
        _ => Step::Over,
    }
}

fn go(node: Node<'_>) -> Step<'_> {
    use SymbolKind as Kind;
    match node.kind() {
        "function_declaration" => Step::named(Kind::Function, node),
        "method_declaration" => Step::named(Kind::Method, node),
        "type_alias" => Step::named(Kind::Type, node),
        "type_spec" => {
            let kind = match node.child_by_field_name("type").map(|of| of.kind()) {
                Some("struct_type") => Kind::Struct,
                Some("interface_type") => Kind::Interface,
                _ => Kind::Type,
            };
            Step::named(kind, node)
        }
        "const_spec" => {
            let mut cursor = node.walk();
            let names = node.children_by_field_name("name", &mut cursor).filter(Node::is_named);
            let declared = names.map(|name| Declared { kind: Kind::Constant, name }).collect();
            Step::Declares { declared, body: None }
        }
        "type_declaration" | "const_declaration" => Step::Through,
        _ => Step::Over,
    }
}

fn java<'t>(node: Node<'t>, text: &str) -> Step<'t> {
    use SymbolKind as Kind;
    match node.kind() {
        "class_declaration" | "record_declaration" => Step::named(Kind::Class, node).with_body(node, Inside::Type),
        "interface_declaration" | "annotation_type_declaration" => {
            Step::named(Kind::Interface, node).with_body(node, Inside::Type)
        }
        "enum_declaration" => Step::named(Kind::Enum, node).with_body(node, Inside::Type),
        "method_declaration"
        | "constructor_declaration"
        | "compact_constructor_declaration"
        | "annotation_type_element_declaration" => Step::named(Kind::Method, node),
        "enum_constant" => Step::named(Kind::Constant, node),
        "module_declaration" => Step::named(Kind::Module, node),
        "constant_declaration" => variables(node),
        "field_declaration" => {
            let modifiers = node.named_child(0).filter(|first| first.kind() == "modifiers");
            let words = modifiers.and_then(|modifiers| text.get(modifiers.byte_range())).unwrap_or_default();
            let has = |wanted| words.split_whitespace().any(|word| word == wanted);
            if has("static") && has("final") { variables(node) } else { Step::Over }
        }
        "enum_body_declarations" => Step::Through,
        _ => Step::Over,
    }
}

/// Constants that are declared together.
fn variables(node: Node<'_>) -> Step<'_> {
    let mut cursor = node.walk();
    let names =
        node.children_by_field_name("declarator", &mut cursor).filter_map(|one| one.child_by_field_name("name"));
    let declared = names.map(|name| Declared { kind: SymbolKind::Constant, name }).collect();
    Step::Declares { declared, body: None }
}

//! What a file is written in, by its name alone.

use crate::job::RelativePath;

/// Endings of names, without the point and in small letters.
const ENDINGS: &[(&str, &[&str])] = &[
    ("Ada", &["adb", "ads"]),
    ("Assembly", &["asm", "s"]),
    ("C", &["c", "h"]),
    ("C#", &["cs"]),
    ("C++", &["cc", "cpp", "cxx", "c++", "hh", "hpp", "hxx", "h++", "ipp", "inl", "cu", "cuh"]),
    ("CMake", &["cmake"]),
    ("CSS", &["css", "scss", "sass", "less"]),
    ("Clojure", &["clj", "cljs", "cljc"]),
    ("Dart", &["dart"]),
    ("Elixir", &["ex", "exs"]),
    ("Erlang", &["erl", "hrl"]),
    ("F#", &["fs", "fsx", "fsi"]),
    ("Fortran", &["f", "f90", "f95", "f03"]),
    ("Go", &["go"]),
    ("Gradle", &["gradle"]),
    ("GraphQL", &["graphql", "gql"]),
    ("HTML", &["html", "htm", "xhtml"]),
    ("Haskell", &["hs", "lhs"]),
    ("JSON", &["json", "jsonc", "json5"]),
    ("Java", &["java"]),
    ("JavaScript", &["js", "jsx", "mjs", "cjs"]),
    ("Julia", &["jl"]),
    ("Kotlin", &["kt", "kts"]),
    ("Lean", &["lean"]),
    ("Lua", &["lua"]),
    ("Markdown", &["md", "markdown", "mdx"]),
    ("Nim", &["nim"]),
    ("Nix", &["nix"]),
    ("OCaml", &["ml", "mli"]),
    ("Objective-C", &["m", "mm"]),
    ("PHP", &["php"]),
    ("Perl", &["pl", "pm"]),
    ("Protocol Buffers", &["proto"]),
    ("Python", &["py", "pyi", "pyw"]),
    ("R", &["r"]),
    ("Rocq", &["v"]),
    ("Ruby", &["rb", "rake", "gemspec"]),
    ("Rust", &["rs"]),
    ("SQL", &["sql"]),
    ("Scala", &["scala", "sc"]),
    ("Shell", &["sh", "bash", "zsh", "fish", "ksh"]),
    ("Solidity", &["sol"]),
    ("Svelte", &["svelte"]),
    ("Swift", &["swift"]),
    ("TOML", &["toml"]),
    ("TSX", &["tsx"]),
    ("TeX", &["tex", "sty", "cls", "bib"]),
    ("Terraform", &["tf", "tfvars"]),
    ("Text", &["txt", "text", "rst", "adoc", "org"]),
    ("TypeScript", &["ts", "mts", "cts"]),
    ("Verilog", &["sv", "svh", "vh"]),
    ("Vue", &["vue"]),
    ("XML", &["xml", "xsd", "xsl", "svg", "plist"]),
    ("YAML", &["yaml", "yml"]),
    ("Zig", &["zig"]),
];

/// Whole names.
const NAMES: &[(&str, &str)] = &[
    ("CMakeLists.txt", "CMake"),
    ("Cargo.lock", "TOML"),
    ("Containerfile", "Dockerfile"),
    ("Dockerfile", "Dockerfile"),
    ("GNUmakefile", "Make"),
    ("Gemfile", "Ruby"),
    ("Justfile", "Make"),
    ("LICENSE", "Text"),
    ("Makefile", "Make"),
    ("README", "Text"),
    ("Rakefile", "Ruby"),
    ("go.mod", "Go module"),
    ("go.sum", "Go module"),
    ("makefile", "Make"),
    ("poetry.lock", "TOML"),
    ("uv.lock", "TOML"),
];

/// The name of what a file is written in, if the file's name tells.
pub fn language(path: &RelativePath) -> Option<&'static str> {
    let name = path.name();
    if let Some((_, language)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(language);
    }
    let (stem, ending) = name.rsplit_once('.')?;
    if stem.is_empty() || ending.len() > 8 {
        return None;
    }
    let ending = ending.to_ascii_lowercase();
    ENDINGS.iter().find(|(_, endings)| endings.contains(&ending.as_str())).map(|(language, _)| *language)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_file_s_name_tells_its_language() {
        for (path, language_of_it) in [
            ("src/lib.rs", Some("Rust")),
            ("a/b.PY", Some("Python")),
            ("index.d.ts", Some("TypeScript")),
            ("Makefile", Some("Make")),
            ("build/CMakeLists.txt", Some("CMake")),
            (".rs", None),
            ("rs", None),
            ("a.unknown", None),
            ("a.", None),
            ("photo.jpeg", None),
        ] {
            assert_eq!(language(&path.parse().unwrap()), language_of_it, "{path}");
        }
    }

    #[test]
    fn no_ending_stands_for_two_languages() {
        let mut seen = BTreeSet::new();
        for (_, endings) in ENDINGS {
            endings.iter().for_each(|ending| assert!(seen.insert(ending), "{ending}"));
        }
    }
}
